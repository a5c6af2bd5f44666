"""One target under libFuzzer: ``python -m tests.fuzz.guided TARGET LIBFUZZER_OPTION...``. Never returns."""

import sys

import atheris

with atheris.instrument_imports(include=["countersign"]):
    from tests.fuzz.mutate import mutate_check
    from tests.fuzz.targets import TARGETS


def main(name: str, *options: str) -> None:
    """Fuzz until an option of libFuzzer's ends it, or something is found."""
    mutator = {}
    if name == "check":
        mutator["custom_mutator"] = lambda data, longest, seed: mutate_check(data, longest, seed, atheris.Mutate)
    atheris.Setup([sys.argv[0], *options], TARGETS[name].run, **mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
