"""The alert rules and the dashboard against what a service tells: nothing in them points nowhere,
no figure is left unwatched, and the limits are those of the code.
"""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tests.services import Service
from tests.web.test_operations import figures
from web import gauges, tls

ROOT = Path(__file__).parent.parent
RULES = ROOT / "deploy/prometheus/archive.rules.yml"
RULE_TESTS = ROOT / "deploy/prometheus/archive.rules.test.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/archive.json").read_text())

_LIMIT = re.compile(r"max by \(job\) \((archive_[a-z_]+)\) > (\d+)")

BY_EYE = {
    "archive_recordings",
    "archive_day_keys",
    "archive_ledger_entries",
    "archive_calls_missing",
}
"""Figures with no limit of their own: they are in the dashboard, and no alarm is made of them."""


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def named(texts: list[str]) -> set[str]:
    return set(re.findall(r"archive_[a-z_]+", " ".join(texts)))


def anchors(page: Path) -> set[str]:
    """The parts of a page, as a link names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


async def test_every_figure_is_watched_and_every_watched_figure_is_told(service: Service) -> None:
    record = {"call_id": "1", "started_at": datetime.now(UTC).isoformat(), "answered": True}
    await service.post("/v1/cdr", json.dumps(record).encode(), {"Content-Type": "application/json"})
    told = {name for name, _ in await figures(service)} | {name for name, _, _ in gauges.TLS}
    alarmed, shown = named([rule["expr"] for rule in rules()]), named(queries())
    assert alarmed | shown <= told
    assert told - alarmed == BY_EYE
    assert told == shown


def test_an_alarm_sounds_past_each_limit_of_the_code_and_no_other() -> None:
    found = {}
    for rule in rules():
        if limit := _LIMIT.fullmatch(rule["expr"]):
            found[limit[1]] = float(limit[2])
    assert found == {gauge.name: limit.value for gauge, limit in gauges.LIMITS}
    others = {rule["alert"] for rule in rules() if not _LIMIT.fullmatch(rule["expr"])}
    assert others == {
        "ArchiveNoAnswer",
        "ArchiveServiceDown",
        "ArchiveCertificateEnds",
        "ArchiveCertificateRefused",
    }
    [ends] = [rule["expr"] for rule in rules() if rule["alert"] == "ArchiveCertificateEnds"]
    assert ends.endswith(f" < {tls.SOON.total_seconds():.0f}")


def test_the_dashboard_shows_the_limits_of_the_code() -> None:
    limits = {gauge.name: limit.value for gauge, limit in gauges.LIMITS}
    shown = {}
    for panel in DASHBOARD["panels"]:
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        red = [step["value"] for step in steps if step["color"] == "red"]
        for name in named([target["expr"] for target in panel["targets"]]):
            if red and name in limits:
                shown[name] = red[0]
    # The dashboard turns red at a value, an alarm sounds past it: of what is counted, at one.
    assert shown == {name: value or 1 for name, value in limits.items()}


def test_every_alarm_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        said = rule["annotations"]
        assert said.keys() == {"summary", "description", "runbook"}
        page, anchor = said["runbook"].split("#")
        assert anchor in anchors(ROOT / page), said["runbook"]


def test_every_alarm_is_in_the_tests_of_the_rules() -> None:
    """They are promtool's; where it is installed, they are run."""
    tests = yaml.safe_load(RULE_TESTS.read_text())
    assert tests["rule_files"] == [RULES.name]
    names = re.findall(r'alertname="(\w+)"', RULE_TESTS.read_text())
    assert set(names) == {rule["alert"] for rule in rules()}
    promtool = shutil.which("promtool")
    for act, file in (("check", RULES), ("test", RULE_TESTS)) if promtool else ():
        done = subprocess.run([str(promtool), act, "rules", file], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_can_be_imported_anywhere() -> None:
    [source, job] = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert job["name"] == "job"
    assert "id" not in DASHBOARD
    panels = DASHBOARD["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    covered: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & covered
        assert max(x for x, _ in cells) < 24
        covered |= cells
        assert all('job="$job"' in target["expr"] for target in panel["targets"])
