"""Start ComfyUI with its web page, this pack, the mini model and the pack's graphs: `python dev.py serve`."""

import argparse
import logging
import subprocess
import sys

from base_folder import place_mini, place_workflows, prepare_base
from comfy_server import free_port, server_command, server_environment
from training.mini.build import build_mini, version
from virtual_environment import ROOT, has_gpu, still_runs

BASE = ROOT / ".host" / "base"
MINI = ROOT / ".host" / f"mini-{version()}"

STOP_LIMIT_S = 20

log = logging.getLogger("serve")


def main() -> int:
    """Prepare `.host/base` and run the server until it ends or Ctrl+C is pressed."""
    parser = argparse.ArgumentParser(prog="dev.py serve", description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8188, help="port of the server; 0 picks a free port")
    arguments, extra = parser.parse_known_args()
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    prepare_base(BASE)
    place_mini(BASE, build_mini(MINI, on_progress=_report))
    place_workflows(BASE)
    port = arguments.port or free_port()
    device = [] if has_gpu() or sys.platform == "darwin" or "--cpu" in extra else ["--cpu"]
    log.info("models, inputs and outputs: %s", BASE)
    log.info("graphs: Workflow > Browse Templates > %s, or the saved workflows", "alignguard")
    log.info("open http://127.0.0.1:%d when the log says so; Ctrl+C stops the server", port)
    command = server_command(BASE, port, (*device, *extra))
    server = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=BASE, env=server_environment())
    try:
        return server.wait()
    except KeyboardInterrupt:
        still_runs(server, STOP_LIMIT_S)  # it received the same Ctrl+C
        return 0
    finally:
        server.stdin.close()  # host_process.py then exits


def _report(stage: str, done: int, total: int) -> None:
    log.info("mini model: %s %d/%d", stage, done, total)


if __name__ == "__main__":
    sys.exit(main())
