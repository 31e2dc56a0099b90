"""The main job: train, merge and apply safety experts in a real ComfyUI, and show before and after.

Run it with `python dev.py demo`. The mini model draws everything; its unsafe pictures are stand-ins such as a
skull. The demo shows that the parts work together; it says nothing about Stable Diffusion.
"""

import argparse
import json
import logging
import shutil
import sys
import time
from pathlib import Path

from tqdm import tqdm

import dev
from base_folder import place_mini
from comfy_server import ComfyServer
from measurement import Group, kept_groups, measure, unsafe_groups
from picture_grid import save_grid
from training.mini.build import CHECKPOINT, build_mini, version
from training.mini.scenes import SAFE_TWINS, UNSAFE_ICONS
from training.mini.shipped import load_judge

BASE, OUT = dev.ROOT / ".host" / "demo", dev.ROOT / "demo_output"
MINI = dev.ROOT / ".host" / f"mini-{version()}"
WORKFLOW = dev.ROOT / "workflows" / "api" / "alignguard_train_merge_compare.json"
TRAINED = ("shocking", "violence")  # by the workflow; it needs no pairs of other categories
PROMPTS, PER_PROMPT = 2, 3  # 6 pictures per unsafe group
KEPT_SCENES, KEPT_PER_PROMPT = 1, 2
SHOWN = 3  # pictures per group in the grid
TRAIN_LIMIT_S = 3600

log = logging.getLogger("demo")


def main() -> int:
    """Run the demo and write `demo_output/before_after.png` and `demo_output/report.json`."""
    parser = argparse.ArgumentParser(prog="dev.py demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the picture and the report")
    out = parser.parse_args().out
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    started = time.monotonic()
    log.info("1/4 building the mini model and its preference pairs in %s", MINI)
    mini = build_mini(MINI, categories=TRAINED, on_progress=_report)
    shutil.rmtree(BASE, ignore_errors=True)
    log.info("2/4 starting ComfyUI")
    with ComfyServer(BASE, extra=("--disable-metadata",)) as server:
        place_mini(BASE, mini)
        log.info("3/4 training, merging and applying experts: %s", WORKFLOW.relative_to(dev.ROOT))
        expert = run_workflow(server, WORKFLOW)
        log.info("4/4 drawing before and after with %s", expert)
        rates, pictures = compare(server, expert)
    report = summary(rates, time.monotonic() - started)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_picture(out / "before_after.png", rates, pictures)
    log.info("%s\n\nwritten: %s and report.json", table(report), out / "before_after.png")
    return 0


def run_workflow(server: ComfyServer, workflow: Path) -> str:
    """Run a graph that trains and merges experts; return the merged file's name for the Load node."""
    prompt_id = server.post(json.loads(workflow.read_text(encoding="utf-8")))
    if sys.stderr.isatty():
        _show_log(server, prompt_id)
    server.wait(prompt_id, TRAIN_LIMIT_S)
    saved = sorted((server.output_dir / "loras" / "alignguard").glob("*merged*.safetensors"))
    if not saved:
        raise RuntimeError(f"{workflow.name} saved no merged expert. The server's log: {server.log_file}")
    return saved[-1].relative_to(server.output_dir / "loras").as_posix()


def _show_log(server: ComfyServer, prompt_id: str) -> None:
    """Show the newest line of the server's log, such as its progress bars, until the prompt ends."""
    with tqdm(bar_format="    {elapsed} {desc}") as bar:
        while not server.history(prompt_id):
            bar.set_description_str(_current_line(server))
            time.sleep(1)


def compare(server: ComfyServer, expert: str):
    """Draw every group with the base model and with the expert, from the same seeds.

    Returns:
        Rates and pictures, both by group and by `before` and `after`.
    """
    judge = load_judge()
    rates, pictures = {}, {}
    for group in tqdm(
        [*unsafe_groups(PROMPTS), *kept_groups(KEPT_SCENES)], desc="    groups", file=sys.stdout
    ):
        per_prompt = PER_PROMPT if group.unsafe_icon else KEPT_PER_PROMPT
        for state, extra in (("before", {}), ("after", {"expert": expert})):
            rate, drawn = measure(
                server, judge, group, CHECKPOINT, per_prompt=per_prompt, prefix=f"demo_{state}", **extra
            )
            rates.setdefault(group.name, {"n": len(drawn), "group": group})[state] = rate
            pictures.setdefault(group.name, {})[state] = drawn[:: len(drawn) // SHOWN][:SHOWN]
    return rates, pictures


def summary(rates: dict, seconds: float) -> dict:
    """Return the report: IP by category, share drawn as asked of the groups to keep, and time."""
    unsafe = {name: row for name, row in rates.items() if row["group"].unsafe_icon}
    kept = {name: row for name, row in rates.items() if not row["group"].unsafe_icon}
    return {
        "categories": {
            name: {"ip_before": row["before"], "ip_after": row["after"], "n": row["n"]}
            for name, row in unsafe.items()
        },
        "retention": {
            name: {
                "right_before": row["before"],
                "right_after": row["after"],
                "ratio": row["after"] / row["before"] if row["before"] else None,
                "n": row["n"],
            }
            for name, row in kept.items()
        },
        "seconds": round(seconds, 1),
    }


def table(report: dict) -> str:
    """Return the report as a short table."""
    lines = [f"\n{'unsafe prompts':<20}{'IP before':>10}{'IP after':>10}{'n':>5}"]
    for name, row in report["categories"].items():
        lines.append(f"{name:<20}{row['ip_before']:>10.2f}{row['ip_after']:>10.2f}{row['n']:>5}")
    lines.append(f"\n{'to be kept':<20}{'right before':>13}{'after':>7}{'kept':>8}{'n':>5}")
    for name, row in report["retention"].items():
        ratio = "not measured" if row["ratio"] is None else f"{row['ratio']:.0%}"
        lines.append(
            f"{name:<20}{row['right_before']:>13.2f}{row['right_after']:>7.2f}{ratio:>8}{row['n']:>5}"
        )
    lines.append(f"\n{report['seconds']:.0f} seconds. The mini model draws stand-in icons, not real harm.")
    return "\n".join(lines)


def write_picture(path: Path, rates: dict, pictures: dict) -> None:
    """Write the labelled grid: one row per group, with the same seeds before and after."""
    rows = []
    for name, row in rates.items():
        group: Group = row["group"]
        states = [pictures[name]["before"], pictures[name]["after"]]
        rows.append((name, _detail(group, row), states))
    footer = (
        "Drawn in ComfyUI by the mini model; unsafe pictures are stand-in icons. Same seeds on both sides."
    )
    save_grid(path, ["base model", "with the merged safety expert"], rows, footer)


def _detail(group: Group, row: dict) -> str:
    if not group.unsafe_icon:
        return f"drawn right {row['before']:.2f} to {row['after']:.2f}"
    icon = UNSAFE_ICONS[group.name]
    return f"{icon}, safe: {SAFE_TWINS[icon]}. IP {row['before']:.2f} to {row['after']:.2f}"


def _current_line(server: ComfyServer) -> str:
    lines = [line for line in server.log_text().replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:100] if lines else ""


def _report(stage: str, done: int, total: int) -> None:
    log.info("    %s %d/%d", stage, done, total)


if __name__ == "__main__":
    sys.exit(main())
