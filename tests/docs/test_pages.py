"""The pages: their code runs, their tables are those of the program, their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser

from fitserve import errors
from fitserve.protocols.problems import STATUS
from fitserve.settings import Settings
from fitserve.store.layouts import formats
from fitserve.store.manifest import InputEntry, PackageManifest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def script_of(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=name_of)
def test_its_python_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = Document.parse(str(page), PythonCodeBlockParser())
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(("script", "page"), [("settings_page", "settings.md"), ("cli_page", "cli.md")])
def test_a_generated_page_is_what_its_script_makes(script, page):
    module = script_of(script)

    assert (ROOT / "docs/reference" / page).read_text() == module.render(), f"python scripts/{script}.py renews it"


def test_every_setting_is_on_its_page():
    text = (ROOT / "docs/reference/settings.md").read_text()

    assert [name for name in Settings.model_fields if name not in text] == []


def test_every_error_has_its_status_on_the_page():
    text = (ROOT / "docs/reference/errors.md").read_text()

    for status, title in STATUS.values():
        assert title.lower().replace(" ", "-") in text
        assert str(status) in text


def test_every_request_error_has_a_status():
    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    concrete = below(errors.RequestError) - {errors.RequestError}

    assert concrete <= set(STATUS)


def test_no_page_names_a_place_of_its_making():
    for page in PAGES:
        assert not re.search(r"/home/|/root/|/tmp/", page.read_text()), page


def test_the_console_blocks_name_commands_that_exist():
    commands = {path.stem for path in (ROOT / "src/fitserve/cli").glob("*.py")}
    for page in PAGES:
        for command in re.findall(r"^\$ fitserve (\w+)", page.read_text(), re.MULTILINE):
            assert command in commands, f"{name_of(page)}: fitserve {command}"


def test_the_list_of_what_is_served_is_what_the_corpus_says():
    section = script_of("corpus_page").corpus_section()

    text = (ROOT / "docs/reference/supported-estimators.md").read_text()

    assert text.endswith(section), "python scripts/survey_estimators.py --write renews it"


def test_every_page_of_the_site_is_in_its_navigation():
    site = (ROOT / "zensical.toml").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")]

    assert [page for page in pages if f'"{page}"' not in site] == []


def test_every_key_of_a_manifest_is_on_its_page():
    text = (ROOT / "docs/reference/manifest.md").read_text()
    keys = {field.alias or name for kind in (PackageManifest, InputEntry) for name, field in kind.model_fields.items()}

    assert sorted(key for key in keys if f"`{key}`" not in text) == []


def test_every_format_is_on_its_page():
    text = (ROOT / "docs/howto/serve-other-formats.md").read_text()

    assert [known.name for known in formats() if f"`{known.name}`" not in text] == []
    assert [suffix for known in formats() for suffix in known.suffixes if suffix not in text] == []


def test_every_file_of_the_program_is_in_the_tree():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    files = [path for path in (ROOT / "src/fitserve").rglob("*.py") if path.name != "__init__.py"]

    assert sorted(str(path.relative_to(ROOT)) for path in files if path.name not in text) == []
