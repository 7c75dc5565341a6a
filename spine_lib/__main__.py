"""Run the command line as `python -m spine_lib`, on a bare Python too."""

import sys

from spine_lib import cli, setup_env

if __name__ == "__main__":
    sys.exit(cli.main(before=setup_env.prepare))
