"""`vllm bench serve`, run by the engine's Python: the same code, without the command line around it.

That looks its own version up as the distribution `vllm`, which the CPU rebuild is not, and so ends before it begins.
"""

from __future__ import annotations

import argparse

from vllm.benchmarks.serve import add_cli_args, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="vllm bench serve")
    add_cli_args(parser)
    main(parser.parse_args())
