"""The results of a study as tables: who took part, who they were, what was measured, what went wrong.

A table points to the module it was made from; its cells are values of that module. Tables are bounded: a study can
report thousands of adverse events, and that something was cut off is said in the metadata.
"""

from collections.abc import Iterator

from medkg.contracts.document import BlockKind, SectionKind
from medkg.parse.builder import DocumentBuilder
from medkg.parse.ctg.prose import unescape
from medkg.parse.ctg.record import Node

MAX_ROWS = 400  # of one table
MAX_GROUPS = 40  # columns of one table
MAX_OUTCOMES = 500
_TITLE = "Results"


class Results:
    """Adds the results of one study; ``is_truncated`` says whether a bound cut something off."""

    def __init__(self, builder: DocumentBuilder, results: Node) -> None:
        self._builder = builder
        self._results = results
        self.is_truncated = False

    def add(self) -> None:
        self._participant_flow(self._results.get("participantFlowModule"))
        self._baseline(self._results.get("baselineCharacteristicsModule"))
        self._outcomes(self._results.get("outcomeMeasuresModule"))
        self._adverse_events(self._results.get("adverseEventsModule"))
        self._open("Limitations")
        self._paragraph(self._results.get("moreInfoModule", "limitationsAndCaveats", "description"))

    def _participant_flow(self, module: Node) -> None:
        self._open("Participant flow")
        self._paragraph(module.get("recruitmentDetails"))
        self._paragraph(module.get("preAssignmentDetails"))
        groups = self._groups(module.get("groups"))
        for period in module.get("periods").items():
            rows = [
                [stage.get("type").words, *_by_group(stage.get(counts), groups, "numSubjects")]
                for name, counts in (("milestones", "achievements"), ("dropWithdraws", "reasons"))
                for stage in period.get(name).items()
            ]
            self._table(module, [period.get("title").text, *groups.values()], rows)

    def _baseline(self, module: Node) -> None:
        self._open("Baseline characteristics")
        self._paragraph(module.get("populationDescription"))
        groups = self._groups(module.get("groups"))
        rows = [
            [denom.get("units").text, *_by_group(denom.get("counts"), groups, "value")]
            for denom in module.get("denoms").items()
        ]
        for measure in module.get("measures").items():
            rows.extend(_measure_rows(measure, groups, measure.get("title").text))
        self._table(module, ["", *groups.values()], rows)

    def _outcomes(self, module: Node) -> None:
        self._open("Outcome measures")
        for number, outcome in enumerate(module.get("outcomeMeasures").items()):
            if number >= MAX_OUTCOMES:
                self.is_truncated = True
                return
            title = outcome.get("title")
            attributes = {"type": outcome.get("type").text, "time_frame": unescape(outcome.get("timeFrame").text)}
            self._builder.add(
                title.text,
                title.at,
                BlockKind.FIELD,
                role="outcome_result",
                attributes={name: value for name, value in attributes.items() if value},
            )
            self._paragraph(outcome.get("description"))
            self._paragraph(outcome.get("populationDescription"))
            groups = self._groups(outcome.get("groups"))
            rows = [
                [denom.get("units").text, *_by_group(denom.get("counts"), groups, "value")]
                for denom in outcome.get("denoms").items()
            ]
            rows.extend(_measure_rows(outcome, groups, ""))
            self._table(outcome, ["", *groups.values()], rows)
            self._analyses(outcome, groups)

    def _analyses(self, outcome: Node, groups: dict[str, str]) -> None:
        rows = []
        for analysis in outcome.get("analyses").items():
            compared = [groups[name] for name in analysis.get("groupIds").texts() if name in groups]
            interval = _range(analysis.get("ciLowerLimit").text, analysis.get("ciUpperLimit").text)
            width = analysis.get("ciPctValue").text
            rows.append(
                [
                    " / ".join(compared),
                    analysis.get("statisticalMethod").text,
                    analysis.get("pValue").text,
                    f"{analysis.get('paramType').text} {analysis.get('paramValue').text}",
                    f"{width}% {interval}" if width and interval else interval,
                    unescape(analysis.get("estimateComment").text),
                ]
            )
        self._table(outcome, ["Groups", "Method", "P value", "Estimate", "Confidence interval", "Comment"], rows)

    def _adverse_events(self, module: Node) -> None:
        self._open("Adverse events")
        self._paragraph(module.get("timeFrame"))
        self._paragraph(module.get("description"))
        groups: dict[str, str] = {}
        rows = []
        for group in module.get("eventGroups").items():
            groups[group.get("id").text] = group.get("title").text
            counts = ((f"{kind}NumAffected", f"{kind}NumAtRisk") for kind in ("deaths", "serious", "other"))
            rows.append(
                [
                    group.get("title").text,
                    *(_fraction(group.get(hit), group.get(risk)) for hit, risk in counts),
                ]
            )
        self._table(module, ["", "Deaths", "Serious events", "Other events"], rows)
        groups = self._cut(groups)
        for title, name in (("Serious events", "seriousEvents"), ("Other events", "otherEvents")):
            rows = [_event_row(event, groups) for event in module.get(name).items()]
            self._table(module, [title, *groups.values()], rows)

    def _groups(self, groups: Node) -> dict[str, str]:
        return self._cut({group.get("id").text: group.get("title").text for group in groups.items()})

    def _cut(self, groups: dict[str, str]) -> dict[str, str]:
        self.is_truncated = self.is_truncated or len(groups) > MAX_GROUPS
        return dict(list(groups.items())[:MAX_GROUPS])

    def _table(self, module: Node, header: list[str], rows: list[list[str]]) -> None:
        self.is_truncated = self.is_truncated or len(rows) > MAX_ROWS
        if rows:
            table = [header, *rows[:MAX_ROWS]]
            lines = [" | ".join(cell for cell in row if cell.strip()) for row in table]
            self._builder.add_table(table, lines, module.at, header_rows=1)

    def _open(self, title: str) -> None:
        self._builder.open_section((_TITLE, title), SectionKind.REGISTRY)

    def _paragraph(self, node: Node) -> None:
        self._builder.add(unescape(node.text), node.at)


def _measure_rows(measure: Node, groups: dict[str, str], title: str) -> Iterator[list[str]]:
    """A row for each category of each class of what was measured."""
    spread = measure.get("dispersionType").words
    kind = measure.get("paramType").words + (f" ({spread})" if spread else "")
    unit = measure.get("unitOfMeasure").text
    for part in measure.get("classes").items():
        for category in part.get("categories").items():
            names = (title, part.get("title").text, category.get("title").text, kind, unit)
            label = ", ".join(name for name in names if name)
            values = {m.get("groupId").text: _value(m) for m in category.get("measurements").items()}
            yield [label, *(values.get(group, "") for group in groups)]


def _value(measurement: Node) -> str:
    value, spread = measurement.get("value").text, measurement.get("spread").text
    limits = _range(measurement.get("lowerLimit").text, measurement.get("upperLimit").text)
    around = spread or limits
    return f"{value} ({around})" if around else value


def _range(lower: str, upper: str) -> str:
    return f"{lower} \N{EN DASH} {upper}" if lower or upper else ""


def _event_row(event: Node, groups: dict[str, str]) -> list[str]:
    system = event.get("organSystem").text
    stats = {stat.get("groupId").text: stat for stat in event.get("stats").items()}
    return [
        event.get("term").text + (f" ({system})" if system else ""),
        *(
            _fraction(stats[group].get("numAffected"), stats[group].get("numAtRisk")) if group in stats else ""
            for group in groups
        ),
    ]


def _fraction(affected: Node, at_risk: Node) -> str:
    return f"{affected.text}/{at_risk.text}" if affected.text or at_risk.text else ""


def _by_group(counts: Node, groups: dict[str, str], name: str) -> list[str]:
    values = {count.get("groupId").text: count.get(name).text for count in counts.items()}
    return [values.get(group, "") for group in groups]
