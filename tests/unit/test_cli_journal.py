"""replicatorctl journal on files: formatting, looking, and every refusal in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicator.cli.main import main
from replicator.errors import DeviceUnusable, JournalRotten, NotAJournal, NotBlank, UsageError
from replicator.journal.layout import RING_AT
from replicator.seams.filedevice import DirectDevice
from tests import tally
from tests.unit.journals import append_batches, damage, journal_file, make_lab


@pytest.fixture
def lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    monkeypatch.setenv("TOWLINE_TOPOLOGY", str(make_lab(tmp_path)))
    monkeypatch.setenv("TOWLINE_SITE", "a")
    capsys.readouterr()
    return tmp_path


def _refused(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on standard error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("replicatorctl: ")
    return lines[0]


def test_journal_format_device_not_blank_is_refused(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = journal_file(lab, "a").read_bytes()
    assert main(["journal", "format"]) == NotBlank.exit_code
    assert "not blank" in _refused(capsys)
    assert journal_file(lab, "a").read_bytes() == before


def test_journal_format_overwrite_of_another_name_is_refused(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(journal_file(lab, "b"))
    assert main(["journal", "format", "--overwrite", other]) == UsageError.exit_code
    assert "--overwrite names" in _refused(capsys)


def test_journal_format_overwrite_by_its_name_makes_a_new_journal(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append_batches(lab, 3)
    path = str(journal_file(lab, "a"))
    assert main(["journal", "format", "--overwrite", path]) == 0
    assert main(["journal", "check"]) == 0
    assert "0 batches" in capsys.readouterr().out


def test_journal_format_file_of_another_size_is_refused(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal_file(lab, "a").write_bytes(bytes(8 << 20))
    assert main(["journal", "format"]) == DeviceUnusable.exit_code
    assert "the topology says 16777216" in _refused(capsys)


def test_journal_format_while_locked_is_refused(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = journal_file(lab, "a")
    device = DirectDevice(path, writable=True, lock=True)
    assert main(["journal", "format", "--overwrite", str(path)]) == 5
    device.close()
    assert "locked by another replicator" in _refused(capsys)
    tally.count("F45")


def test_journal_format_folder_that_is_a_file_is_refused(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal_file(lab, "a").unlink()
    journal_file(lab, "a").parent.rmdir()
    journal_file(lab, "a").parent.write_text("")
    assert main(["journal", "format"]) == DeviceUnusable.exit_code
    assert "cannot be made" in _refused(capsys)


def test_journal_info_states_pages_and_catalog(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = append_batches(lab, 2)[-1]
    assert main(["journal", "info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["role"] == "primary"
    assert facts["generation"] == 3
    assert facts["head"].startswith(f"{end.position}:{end.digest.hex()}, 2 records")
    assert facts["volume_wal"] == "id 2, 1048576 bytes"


def test_journal_info_secondary_that_met_nobody_says_so(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["journal", "info", str(journal_file(lab, "b"))]) == 0
    assert "the journal has not met its source" in capsys.readouterr().out


def test_journal_dump_lists_batches_and_records(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = append_batches(lab, 4)
    flags = ["--json", "--records", "--from", str(ends[0].position), "--limit", "2"]
    assert main(["journal", "dump", *flags]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["position"] for row in rows] == [ends[0].position, ends[1].position]
    assert rows[0]["digest"] == ends[1].digest.hex()
    assert rows[1]["records"] == [
        {"sequence": 2, "kind": "write", "volume_id": 1, "offset": 8192, "length": 4096}
    ]


def test_journal_dump_as_text_has_a_line_a_batch_and_a_record(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append_batches(lab, 3)
    assert main(["journal", "dump", "--records"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 + 3


@pytest.mark.parametrize("flags", [["--limit", "0"], ["--from", "-1"]])
def test_journal_dump_bad_numbers_are_refused(
    lab: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert main(["journal", "dump", *flags]) == UsageError.exit_code
    assert "expect numbers" in _refused(capsys)


def test_journal_check_whole_ring_is_ok(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append_batches(lab, 5)
    assert main(["journal", "check"]) == 0
    assert "OK, 5 batches, 5 records" in capsys.readouterr().out


@pytest.mark.parametrize("batch", range(5))
@pytest.mark.parametrize("offset", [0, 100, 4096, 8191])
def test_journal_check_one_byte_turned_names_the_offset(
    lab: Path, capsys: pytest.CaptureFixture[str], batch: int, offset: int
) -> None:
    ends = append_batches(lab, 5)
    start = ends[batch - 1].position if batch else 0
    damage(journal_file(lab, "a"), RING_AT + start + offset)
    code = main(["journal", "check"])
    assert code == JournalRotten.exit_code
    assert f"journal rot at device offset {RING_AT + start}" in _refused(capsys)
    tally.count("F7")


def test_journal_check_both_pages_torn_is_no_journal(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for copy in (0, 4096):
        damage(journal_file(lab, "a"), copy + 200)
    assert main(["journal", "check"]) == NotAJournal.exit_code
    assert "no valid journal page" in _refused(capsys)


def test_journal_info_one_page_torn_goes_on_with_the_other(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(journal_file(lab, "a"), 200)
    assert main(["journal", "info"]) == 0
    assert "copy 0: page digest does not hold" in capsys.readouterr().out


def test_journal_check_file_cut_short_is_refused(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with journal_file(lab, "a").open("r+b") as file:
        file.truncate(8 << 20)
    assert main(["journal", "check"]) == 8
    assert "was it cut short?" in _refused(capsys)


@pytest.mark.parametrize("command", ["info", "dump", "check"])
def test_journal_blank_device_is_refused(
    lab: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    blank = lab / "blank"
    blank.write_bytes(bytes(1 << 20))
    assert main(["journal", command, str(blank)]) == NotAJournal.exit_code
    assert "replicatorctl journal format" in _refused(capsys)
    tally.count("F32")


@pytest.mark.parametrize("command", ["info", "dump", "check"])
def test_journal_missing_device_is_refused(
    lab: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main(["journal", command, str(lab / "absent")]) == DeviceUnusable.exit_code
    assert "cannot be opened: No such file" in _refused(capsys)


def test_journal_folder_as_device_is_refused(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "info", str(lab)]) == DeviceUnusable.exit_code
    _refused(capsys)
