"""`contrafact new` writes a study that passes `contrafact check`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contrafact import bundle, study
from contrafact.cli import main

TEMPLATES = ("faces_world", "products_world", "photographs", "own_stimuli")


def cli(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(words)
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_every_template_is_offered_and_commented() -> None:
    files = sorted((bundle.folder("studies") / "templates").glob("*.yaml"))
    assert sorted(file.stem for file in files) == sorted(TEMPLATES)
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "study: NAME" in text
        assert text.count("#") > 10


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_study_passes_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], template: str
) -> None:
    code, out, _ = cli(capsys, "new", "mine", "--template", template, "--folder", str(tmp_path), "--json")
    answer = json.loads(out)
    path = Path(answer["study"])
    assert code == 0
    assert all(Path(file).is_file() for file in answer["files"])
    assert "NAME" not in path.read_text(encoding="utf-8")
    loaded = study.load(path)
    assert loaded.study.study == "mine"

    code, out, _ = cli(capsys, "check", str(path), "--json")
    assert code == 0
    assert json.loads(out)["sha256"] == loaded.sha256
    code, out, _ = cli(capsys, "check", str(path))
    assert code == 0
    assert f"Next: contrafact run {path} --dry-run" in out


def test_the_pictures_of_a_new_study_can_be_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    cli(capsys, "new", "mine", "--template", "own_stimuli", "--folder", str(tmp_path))
    pictures = sorted((tmp_path / "mine").glob("*.png"))
    assert len({picture.read_bytes() for picture in pictures}) == len(pictures) == 12
    with Image.open(pictures[0]) as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 64))


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("new", "mine", "--template", "photographs", "--folder", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "images.csv").write_text("my own")
    code, _, err = cli(capsys, *words)
    assert code == 2
    assert "is there already" in err
    assert (tmp_path / "mine" / "images.csv").read_text() == "my own"
    assert not (tmp_path / "mine.yaml").exists()


def test_a_name_that_cannot_be_a_slug_is_answered_with_one_that_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = cli(capsys, "new", "My Smile-Study", "--folder", str(tmp_path))
    assert code == 2
    assert "contrafact new my_smile_study" in err
    assert not list(tmp_path.iterdir())


def test_a_check_tells_machines_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("study: wrong\ntitel: Wrong\nworld: {kind: tru}\ndirections: {up: {}}\n")
    code, out, err = cli(capsys, "check", str(path), "--json")
    assert code == 2
    mistakes = json.loads(out.splitlines()[-1])["mistakes"]
    assert [(one["line"], one["path"], one["nearest"]) for one in mistakes] == [
        (1, "title", None),
        (2, "titel", "title"),
        (3, "world.kind", "true"),
    ]
    assert "wrong.yaml:3: world.kind" in err


def test_the_command_loads_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "sound.yaml"
    path.write_text("study: sound\ntitle: Sound\nworld: {}\ndirections: {up: {}}\n")
    program = (
        "import sys\nfrom contrafact.cli import main\n"
        f"try: main(['check', {str(path)!r}])\nexcept SystemExit as left: assert not left.code\n"
        "heavy = {'torch', 'pandas', 'sqlalchemy', 'mlflow', 'streamlit', 'diffusers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
