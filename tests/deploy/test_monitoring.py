"""Prometheus takes its files, the alarms behave, the dashboard is Grafana's; all speak of what exists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from deploy.monitoring import (
    GRAFANA,
    PROMETHEUS,
    RUNBOOK,
    dashboard_faults,
    exported,
    expression_faults,
    promtool,
    provisioning_faults,
    rule_faults,
    said_by_promtool,
    scrape_faults,
)
from servers.process import ROOT

ALERTS, BEHAVIOUR, SCRAPES = (
    PROMETHEUS / name for name in ("alerts.yaml", "alerts_test.yaml", "prometheus.yml")
)
DASHBOARD = GRAFANA / "dashboards" / "crosstie.json"
DATASOURCES = GRAFANA / "provisioning" / "datasources" / "prometheus.yaml"
PROVIDERS = GRAFANA / "provisioning" / "dashboards" / "crosstie.yaml"
SERVICES = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]


def planted(path: Path, folder: Path, right: str, wrong: str) -> Path:
    """A copy of a file, and of those that it names, with a misspelling in it."""
    text = path.read_text()
    assert right in text
    copies = shutil.copytree(path.parent, folder / "copy")
    copy = Path(copies) / path.name
    copy.write_text(text.replace(right, wrong, 1))
    return copy


def test_the_figures_are_found() -> None:
    assert {
        "crosstie_pairs_total",
        "crosstie_windows",
        "crosstie_match_seconds_bucket",
        "crosstie_notices_total",
        "crosstie_archive_newest_commit_timestamp_seconds",
        "crosstie_gpu_memory_bytes",
    } <= exported()


def test_alarms_are_well_formed_and_speak_of_what_there_is() -> None:
    assert rule_faults(ALERTS, RUNBOOK.read_text()) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("annotations:", "anotations:"),
        ("expr:", "exp:"),
        ("for: 10m", "for: 10 minutes"),
        ("time()", "tme()"),
        ("absent(", "abscent("),
        ("crosstie_run_last_start_timestamp_seconds{", "crosstie_run_last_started_timestamp_seconds{"),
        ("crosstie_windows_done_total", "crosstie_windows_done"),
        ("sum by (job, instance)", "sum by (job, instanze)"),
        ('{outcome="failed"}', '{outcom="failed"}'),
        ("summary:", "sumary:"),
        ("#crosstiesitestale", "#crosstiesitestaled"),
        ("alert: CrosstieTargetDown", "alert: CrosstieTargetDwon"),
        ("severity: critical", "severity: criticle"),
        ("- record: crosstie:archive_pairs_new:1d", "- record: crosstie:archive_pair_new:1d"),
        ("{{ $value | humanizeDuration }}", "{{ $value | humaniseDuration }}"),
    ],
)
def test_a_misspelt_alarm_is_found(tmp_path: Path, right: str, wrong: str) -> None:
    assert rule_faults(planted(ALERTS, tmp_path, right, wrong), RUNBOOK.read_text())


def test_an_alarm_without_its_heading_in_the_run_book_is_found() -> None:
    runbook = RUNBOOK.read_text().replace("### CrosstieNoMatcher", "### CrosstieNoMatch")
    assert rule_faults(ALERTS, runbook) == [
        "CrosstieNoMatcher: deploy/README.md has no heading `### CrosstieNoMatcher`"
    ]


def test_alarms_behave_as_their_tests_say() -> None:
    assert said_by_promtool("test", "rules", BEHAVIOUR) == []


def test_every_alarm_has_a_test_that_sees_it_fire_and_one_that_does_not() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    asked = [
        case for test in yaml.safe_load(BEHAVIOUR.read_text())["tests"] for case in test["alert_rule_test"]
    ]
    fires = {case["alertname"] for case in asked if case.get("exp_alerts")}
    names = {rule["alert"] for rule in rules if "alert" in rule}
    assert fires == names
    silent = {case["alertname"] for case in asked if not case.get("exp_alerts")}
    # Those two have in their one test what must not fire beside what must.
    assert silent | {"CrosstieManyFailures", "CrosstieSiteStale", "CrosstieGpuMemoryFull"} == names


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('verdict="unreliable"', 'verdict="unrelaible"'),
        ("> ignoring (outcome)", "< ignoring (outcome)"),
    ],
)
def test_an_alarm_that_does_not_fire_any_more_is_found(tmp_path: Path, right: str, wrong: str) -> None:
    planted(ALERTS, tmp_path, right, wrong)
    assert said_by_promtool("test", "rules", tmp_path / "copy" / BEHAVIOUR.name)


def test_prometheus_fetches_from_the_services_of_compose() -> None:
    assert scrape_faults(SCRAPES, SERVICES) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("scrape_interval:", "scrape_intervall:"),
        ("[alerts.yaml]", "[alert.yaml]"),
        ("    static_configs:\n      - targets:", "    static_config:\n      - targets:"),
        ("job_name: crosstie-site", "job_name: crostie-site"),
        ("listener:8090", "listner:8090"),
        ("dask-scheduler:8787", "dask-scheduler:8788"),
        ("prefect-worker:9110", "prefect-worker:9111"),
    ],
)
def test_a_misspelt_scrape_is_found(tmp_path: Path, right: str, wrong: str) -> None:
    assert scrape_faults(planted(SCRAPES, tmp_path, right, wrong), SERVICES)


def test_the_dashboard_is_grafanas_and_speaks_of_what_there_is() -> None:
    assert dashboard_faults(DASHBOARD.read_text()) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"panels"', '"panel"'),
        ('"gridPos"', '"gridpos"'),
        ('"fillOpacity"', '"fillOpacty"'),
        ('"legendFormat"', '"legendformat"'),
        ('"type": "timeseries"', '"type": "timeserie"'),
        ('"unit": "bytes"', '"unit": "byte"'),
        ('"drawStyle": "line"', '"drawStyle": "lines"'),
        ('"displayMode": "list"', '"displayMode": "lst"'),
        ('"type": "prometheus"', '"type": "promtheus"'),
        ("crosstie_read_bytes_total", "crosstie_reads_bytes_total"),
        ("dask_worker_memory_bytes", "dask_workers_memory_bytes"),
        ("sum by (kind, answer)", "sum by (kind, anwser)"),
        ("{{verdict}}", "{{verdct}}"),
        ("histogram_quantile(0.5", "histogram_quantil(0.5"),
        ("$__rate_interval", "$__rate_intervall"),
        ('"timezone": "browser"', '"timezones": "browser"'),
        ('"schemaVersion"', '"schemaversion"'),
    ],
)
def test_a_misspelt_dashboard_is_found(right: str, wrong: str) -> None:
    text = DASHBOARD.read_text()
    assert right in text
    assert dashboard_faults(text.replace(right, wrong, 1))


@pytest.mark.parametrize(("path", "kind"), [(DATASOURCES, "datasources"), (PROVIDERS, "dashboards")])
def test_grafana_is_told_where_to_look(path: Path, kind: str) -> None:
    assert provisioning_faults(path.read_text(), kind) == []
    mounted = [str(volume) for volume in SERVICES["grafana"]["volumes"]]
    assert any("/etc/grafana/provisioning" in volume for volume in mounted)
    assert any("/etc/grafana/dashboards" in volume for volume in mounted)


@pytest.mark.parametrize(
    ("path", "kind", "right", "wrong"),
    [
        (DATASOURCES, "datasources", "isDefault:", "isdefault:"),
        (DATASOURCES, "datasources", "http://prometheus:9090", "http://promtheus:9090"),
        (DATASOURCES, "datasources", "timeInterval:", "timeIntervall:"),
        (PROVIDERS, "dashboards", "providers:", "provider:"),
        (PROVIDERS, "dashboards", "/etc/grafana/dashboards", "/etc/grafana/dashboard"),
    ],
)
def test_a_misspelt_provision_is_found(path: Path, kind: str, right: str, wrong: str) -> None:
    text = path.read_text()
    assert right in text
    assert provisioning_faults(text.replace(right, wrong, 1), kind)


@pytest.mark.parametrize(
    ("expression", "faults"),
    [
        ('sum by (flow) (rate(crosstie_pairs_total{verdict="failed"}[5m])) > 0.1', 0),
        ("a_b", 1),
        ('up{jub="x"}', 1),
        ("up offset 1d and on () up", 0),
        ("sum without (outcom) (up)", 1),
    ],
)
def test_expressions_are_read_for_figures_and_labels(expression: str, faults: int) -> None:
    assert len(expression_faults(expression, {"up", "crosstie_pairs_total"})) == faults


def test_promtool_is_there_or_the_test_says_how_to_get_it() -> None:
    assert Path(promtool()).is_file()
