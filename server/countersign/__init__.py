"""Countersign: Istio's security policies, unchanged, in front of any Envoy, with a reason for every decision.

    CheckRequest --decode--> RequestFacts --authenticate--> Identity --evaluate--> Decision --encode--> CheckResponse

Rooms, in the one direction that imports take:
``cli -> app -> edge -> authorize -> {policy, tokens} -> core``; ``wire`` serves ``edge``, ``mesh`` serves ``cli``.
"""
