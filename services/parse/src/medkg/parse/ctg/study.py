"""A study record to a document: sections as the registry shows them, every fact a field with its role.

Source of the names: the data structure of the ClinicalTrials.gov API v2 (``/api/v2/studies/metadata``).
"""

import msgspec

from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import BlockKind, Document, RawPayload, SectionKind
from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError, PayloadUnsupportedError
from medkg.parse.builder import DocumentBuilder, flat
from medkg.parse.ctg.prose import criteria, pieces, unescape
from medkg.parse.ctg.record import Node
from medkg.parse.ctg.results import Results
from medkg.parse.ctg.terms import add_terms

_ELIGIBILITY = "Eligibility"
_MAX_CONDITIONS = 32  # to filter by; the document holds all of them
_MAX_CONDITION_CHARACTERS = 200


def parse_study(ctx: StageContext, payload: RawPayload) -> Document:
    """The document of one study.

    Fields are blocks of kind ``field`` with a role: ``condition``, ``keyword``, ``intervention``, ``phase``,
    ``primary_outcome`` and so on. A field that is one of an enumeration reads as words (``Phase 2``) and keeps the
    registry's value in the attribute ``value``.

    Raises:
        PayloadMalformedError: not JSON. PayloadUnsupportedError: no study of API v2.
        PayloadTooLargeError: over a bound.
    """
    study = _read(payload)
    protocol = study.get("protocolSection")
    writer = _Writer(DocumentBuilder(payload.source_id), protocol)
    writer.add_all()
    results = Results(writer.builder, study.get("resultsSection"))
    results.add()
    writer.add_references()
    add_terms(writer.builder, study)
    identification = protocol.get("identificationModule")
    nct = identification.get("nctId").text
    metadata = _metadata(study)
    if results.is_truncated:
        metadata["results_truncated"] = True
    return Document(
        doc_id=ctx.doc_id,
        source=payload.source,
        source_id=payload.source_id,
        kind="trial",
        title=flat(identification.get("briefTitle").text or identification.get("officialTitle").text) or nct,
        sections=writer.builder.sections(),
        identifiers={"nct": nct},
        metadata=metadata,
        language="en",  # the registry takes entries in English only
    )


def _read(payload: RawPayload) -> Node:
    at = f"parsing {payload.source_id}"
    try:
        study = Node(msgspec.json.decode(payload.text.encode()))
    except RecursionError as error:
        raise PayloadTooLargeError(f"{at}: JSON nested too deep to be a study record") from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise PayloadMalformedError(f"{at}: not JSON: {error}") from error
    if not study.get("protocolSection", "identificationModule", "nctId").text:
        raise PayloadUnsupportedError(
            f"{at}: JSON, but no study of the ClinicalTrials.gov API v2 (no NCT number in its protocolSection)"
        )
    return study


class _Writer:
    """Writes the protocol section of a study into a builder."""

    def __init__(self, builder: DocumentBuilder, protocol: Node) -> None:
        self.builder = builder
        self._protocol = protocol

    def add_all(self) -> None:
        self._identification(self._protocol.get("identificationModule"))
        self._summary(self._protocol.get("descriptionModule"))
        self._status(self._protocol.get("statusModule"))
        self._sponsors(self._protocol.get("sponsorCollaboratorsModule"))
        self._conditions(self._protocol.get("conditionsModule"))
        self._design(self._protocol.get("designModule"))
        self._arms(self._protocol.get("armsInterventionsModule"))
        self._outcomes(self._protocol.get("outcomesModule"))
        self._eligibility(self._protocol.get("eligibilityModule"))
        self._locations(self._protocol.get("contactsLocationsModule"))

    def add_references(self) -> None:
        self._open("References", kind=SectionKind.REFERENCES)
        for reference in self._protocol.get("referencesModule", "references").items():
            citation = reference.get("citation")
            attributes = _filled(pmid=reference.get("pmid").text, type=reference.get("type").text)
            self.builder.add(unescape(citation.text), citation.at, BlockKind.REFERENCE, attributes=attributes)

    def _identification(self, module: Node) -> None:
        self._open("Identification")
        self._field("nct_number", module.get("nctId"))
        self._field("brief_title", module.get("briefTitle"))
        self._field("official_title", module.get("officialTitle"))
        self._field("acronym", module.get("acronym"))
        self._field("organisation_study_id", module.get("orgStudyIdInfo", "id"))
        for secondary in module.get("secondaryIdInfos").items():
            self._field("secondary_id", secondary.get("id"), type=secondary.get("type").text)

    def _summary(self, module: Node) -> None:
        self._open("Brief summary", kind=SectionKind.ABSTRACT)
        self._prose(module.get("briefSummary"))
        self._open("Detailed description", kind=SectionKind.BODY)
        self._prose(module.get("detailedDescription"))

    def _status(self, module: Node) -> None:
        self._open("Status")
        self._enumerated("overall_status", module.get("overallStatus"))
        self._field("why_stopped", module.get("whyStopped"))
        for role, name in (
            ("start_date", "startDateStruct"),
            ("primary_completion_date", "primaryCompletionDateStruct"),
            ("completion_date", "completionDateStruct"),
        ):
            self._field(role, module.get(name, "date"), type=module.get(name, "type").text)

    def _sponsors(self, module: Node) -> None:
        self._open("Sponsor")
        lead = module.get("leadSponsor")
        self._field("lead_sponsor", lead.get("name"), **{"class": lead.get("class").text})
        for other in module.get("collaborators").items():
            self._field("collaborator", other.get("name"), **{"class": other.get("class").text})

    def _conditions(self, module: Node) -> None:
        self._open("Conditions")
        for condition in module.get("conditions").items():
            self._field("condition", condition)
        for keyword in module.get("keywords").items():
            self._field("keyword", keyword)

    def _design(self, module: Node) -> None:
        self._open("Design")
        self._enumerated("study_type", module.get("studyType"))
        for phase in module.get("phases").items():
            self._enumerated("phase", phase)
        info = module.get("designInfo")
        self._enumerated("allocation", info.get("allocation"))
        self._enumerated("intervention_model", info.get("interventionModel"))
        self._prose(info.get("interventionModelDescription"))
        self._enumerated("primary_purpose", info.get("primaryPurpose"))
        self._enumerated("observational_model", info.get("observationalModel"))
        self._enumerated("time_perspective", info.get("timePerspective"))
        self._enumerated("masking", info.get("maskingInfo", "masking"))
        self._prose(info.get("maskingInfo", "maskingDescription"))
        enrollment = module.get("enrollmentInfo")
        self._field("enrollment", enrollment.get("count"), type=enrollment.get("type").text)
        self._field("target_duration", module.get("targetDuration"))

    def _arms(self, module: Node) -> None:
        self._open("Arms and interventions")
        for arm in module.get("armGroups").items():
            interventions = "; ".join(arm.get("interventionNames").texts())
            self._field("arm", arm.get("label"), type=arm.get("type").text, interventions=interventions)
            self._prose(arm.get("description"))
        for intervention in module.get("interventions").items():
            self._field(
                "intervention",
                intervention.get("name"),
                type=intervention.get("type").text,
                arm_labels="; ".join(intervention.get("armGroupLabels").texts()),
                other_names="; ".join(intervention.get("otherNames").texts()),
            )
            self._prose(intervention.get("description"))

    def _outcomes(self, module: Node) -> None:
        for role, title, name in (
            ("primary_outcome", "Primary outcomes", "primaryOutcomes"),
            ("secondary_outcome", "Secondary outcomes", "secondaryOutcomes"),
            ("other_outcome", "Other outcomes", "otherOutcomes"),
        ):
            self._open("Outcomes", title)
            for outcome in module.get(name).items():
                self._field(role, outcome.get("measure"), time_frame=unescape(outcome.get("timeFrame").text))
                self._field("outcome_time_frame", outcome.get("timeFrame"))
                self._prose(outcome.get("description"))

    def _eligibility(self, module: Node) -> None:
        self._open(_ELIGIBILITY)
        self._enumerated("sex", module.get("sex"))
        self._field("minimum_age", module.get("minimumAge"))
        self._field("maximum_age", module.get("maximumAge"))
        self._prose(module.get("studyPopulation"))
        self._enumerated("sampling_method", module.get("samplingMethod"))
        text = module.get("eligibilityCriteria")
        for criterion in criteria(text.text):
            self._open(*(name for name in (_ELIGIBILITY, criterion.heading) if name))
            self.builder.add(
                criterion.text,
                text.at,
                BlockKind.FIELD,
                role="eligibility_criterion",
                attributes=_filled(kind=criterion.kind),
            )

    def _locations(self, module: Node) -> None:
        self._open("Locations")
        for location in module.get("locations").items():
            names = (location.get(name).text for name in ("facility", "city", "state", "country"))
            self.builder.add(
                ", ".join(name for name in names if name),
                location.at,
                BlockKind.FIELD,
                role="location",
                attributes=_filled(country=location.get("country").text),
            )

    def _open(self, *path: str, kind: SectionKind = SectionKind.REGISTRY) -> None:
        self.builder.open_section(path, kind)

    def _field(self, role: str, node: Node, **attributes: str) -> None:
        self.builder.add(unescape(node.text), node.at, BlockKind.FIELD, role=role, attributes=_filled(**attributes))

    def _enumerated(self, role: str, node: Node) -> None:
        self.builder.add(node.words, node.at, BlockKind.FIELD, role=role, attributes=_filled(value=node.text))

    def _prose(self, node: Node) -> None:
        for piece in pieces(node.text):
            self.builder.add(piece.text, node.at, BlockKind.LIST_ITEM if piece.is_item else BlockKind.PARAGRAPH)


def _metadata(study: Node) -> Metadata:
    """Small facts to filter and route by."""
    protocol = study.get("protocolSection")
    design, status = protocol.get("designModule"), protocol.get("statusModule")
    metadata: Metadata = {
        "conditions": "|".join(_conditions(study)),
        "phase": "/".join(design.get("phases").texts()),
        "status": status.get("overallStatus").text,
        "study_type": design.get("studyType").text,
    }
    year = status.get("startDateStruct", "date").text[:4]
    if year.isascii() and year.isdecimal():
        metadata["year"] = int(year)
    enrollment = design.get("enrollmentInfo", "count").value
    if isinstance(enrollment, int) and not isinstance(enrollment, bool) and 0 <= enrollment < 10**12:
        metadata["enrollment"] = enrollment
    metadata["has_results"] = study.get("hasResults").value is True
    return {name: value for name, value in metadata.items() if value != ""}


def _conditions(study: Node) -> list[str]:
    """What the study is about, as it was registered and, behind that, in the terms of MeSH that it was given."""
    registered = study.get("protocolSection", "conditionsModule", "conditions").items()
    terms = study.get("derivedSection", "conditionBrowseModule", "meshes").items()
    names = [*registered, *(term.get("term") for term in terms)]
    texts = (flat(unescape(name.text)).replace("|", "/")[:_MAX_CONDITION_CHARACTERS] for name in names)
    return list({text.casefold(): text for text in texts if text}.values())[:_MAX_CONDITIONS]


def _filled(**attributes: str) -> dict[str, str]:
    return {name: text for name, value in attributes.items() if (text := flat(value))}
