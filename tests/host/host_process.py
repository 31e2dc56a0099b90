"""Run ComfyUI's main.py and exit when the process that started it ends, however it ends.

    python host_process.py COMFYUI_FOLDER [ComfyUI's arguments]

The parent holds the other end of standard input and never writes, so end of file means that the parent has
ended.
"""

import os
import runpy
import sys
import threading


def _follow_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_follow_parent, daemon=True).start()
    sys.argv = [os.path.join(sys.argv[1], "main.py"), *sys.argv[2:]]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
