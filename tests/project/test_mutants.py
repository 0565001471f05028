"""The list of mutants fits the package and the tests as they are; ``make mutants`` runs them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.project.mutants import PACKAGE, Mutant, modules_of_tests, mutants
from tests.support.servers import ROOT

MUTANTS = mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant.about))
def test_mutants_each_can_be_applied_and_names_a_test_that_exists_once(mutant: Mutant, tmp_path: Path) -> None:
    copy = tmp_path / PACKAGE / mutant.file
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / PACKAGE / mutant.file, copy)
    mutant.apply(tmp_path)
    assert copy.read_text() != (ROOT / PACKAGE / mutant.file).read_text()
    modules = modules_of_tests()
    assert mutant.tests
    assert [test for test in mutant.tests if len(modules.get(test.partition("[")[0], [])) != 1] == []


def test_mutants_cover_every_package_of_the_code() -> None:
    modules = [path.relative_to(ROOT / PACKAGE) for path in (ROOT / PACKAGE).rglob("*.py")]
    with_code = {module.parent for module in modules if module.name != "__init__.py"}
    assert with_code - {Path(mutant.file).parent for mutant in MUTANTS} == set()
    assert len(MUTANTS) >= 40
