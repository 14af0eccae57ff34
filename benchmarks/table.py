"""What was measured, in rows by what it was."""

from __future__ import annotations

from collections import defaultdict

from benchmarks.load import Run, percentile

HEAD = """\
| what | pictures | median, s | quartiles | p95 | pictures/s | of the rounds | rows a call |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


class Table:
    """Runs of the same name, one or more a round, are a row together."""

    def __init__(self) -> None:
        self._runs: dict[str, list[Run]] = defaultdict(list)

    def add(self, name: str, run: Run) -> None:
        self._runs[name].append(run)

    def latency(self, name: str) -> float:
        """Seconds, the median of all pictures."""
        return percentile(self._latencies(name), 50)

    def rate(self, name: str) -> float:
        """Pictures a second, the median of the runs."""
        return percentile([run.per_second for run in self._runs[name]], 50)

    def __str__(self) -> str:
        return "\n".join([HEAD, *map(self._row, self._runs)])

    def _latencies(self, name: str) -> list[float]:
        return [seconds for run in self._runs[name] for seconds in run.latencies]

    def _row(self, name: str) -> str:
        latencies = self._latencies(name)
        low, median, high, most = (f"{percentile(latencies, p):.3f}" for p in (25, 50, 75, 95))
        rates = [run.per_second for run in self._runs[name]]
        calls = sum(run.calls for run in self._runs[name])
        rows = sum(run.rows for run in self._runs[name])
        cells = (
            *(name, len(latencies), median, f"{low} to {high}", most, f"{self.rate(name):.3f}"),
            *(f"{min(rates):.3f} to {max(rates):.3f}", f"{rows / calls:.1f}" if calls else ""),
        )
        return f"| {' | '.join(map(str, cells))} |"
