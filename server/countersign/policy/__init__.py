"""Istio resources to decisions. Pure, and the only room that knows Istio's policy language.

``parse`` (with `reading`) makes `resources` of YAML; `scope` picks what applies to a workload; `spec` is the definition
of a decision, with the whole trace, and `compile` (with `index`) the engine that serves; `terms` is what a rule can
ask about; `analysis` warns of policies that do not do what they seem to.
"""
