"""The script that runs the tests of transformers on our classes: what it rewrites and reports."""

from xml.etree import ElementTree

import pytest

from benchmarks.compare.transformers_tests import (
    FILES,
    Result,
    arrange,
    on_our_classes,
    print_results,
    result_of,
)


def test_imports_of_videomae_come_from_ours_and_others_stay():
    source = (
        "import torch\nfrom transformers import VideoMAEConfig\n"
        "if torch:\n    from transformers import (\n"
        "        MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING,\n        VideoMAEModel,\n"
        "        logging,\n    )\nx = VideoMAEConfig()\n"
    )
    assert on_our_classes(source, FILES[0]) == (
        "import torch\nfrom ours import VideoMAEConfig\n"
        "if torch:\n    from transformers import logging\n"
        "    from ours import MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING, VideoMAEModel\n"
        "x = VideoMAEConfig()\n"
    )
    assert on_our_classes(source, "test_modeling_common") == source


@pytest.mark.parametrize(
    ("inside", "status", "reason"),
    [
        ("", "passed", ""),
        ('<skipped message="test is slow"/>', "not applicable", "test is slow"),
        ('<skipped message="A::b is skipped: no GPU"/>', "not applicable", "no GPU"),
        ('<failure message="AssertionError: 1"/>', "failed", "AssertionError: 1"),
        ('<failure message="x">ConnectionError</failure>', "not applicable", "needs the network"),
    ],
)
def test_result_of_a_test(inside, status, reason):
    case = ElementTree.fromstring(f'<testcase name="test_x">{inside}</testcase>')
    assert result_of(case) == Result("test_x", status, reason)


def test_results_are_counted_with_their_reasons(capsys):
    results = [
        Result("a", "passed"),
        Result("b", "failed", "no"),
        Result("c", "not applicable", "x"),
    ]
    print_results(results)
    assert capsys.readouterr().out == (
        "failed  b: no\nnot applicable  1 x x: c\n"
        "3 tests, 1 of them not applicable: 1 of 2 passed, 1 failed\n"
    )


def test_folder_without_the_tests_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"lacks test_modeling_videomae.py; give a checkout of"):
        arrange(tmp_path, tmp_path / "root")
