"""Frozen dataclasses that packages exchange; standard library only."""

from dropsearch.core.records.arms import ARMS, Arm, Site, arm_title
from dropsearch.core.records.outcomes import ArmOutcome, Comparison, Confirmed, Interval, TestScores, best_arm
from dropsearch.core.records.ranges import Choice, Numbers, Range
from dropsearch.core.records.summary import (
    Answer,
    ArmEvidence,
    Budget,
    Claim,
    Evidence,
    Quantity,
    Response,
    Series,
    Summary,
    Variation,
)
from dropsearch.core.records.trials import (
    INTERRUPTED,
    ComparisonMetric,
    EpochMetrics,
    Monitor,
    State,
    TrialPhase,
    TrialResult,
    TrialSpec,
)

__all__ = [
    "ARMS", "INTERRUPTED", "Answer", "Arm", "ArmEvidence", "ArmOutcome", "Budget", "Choice", "Claim", "Comparison",
    "ComparisonMetric", "Confirmed", "EpochMetrics", "Evidence", "Interval", "Monitor", "Numbers", "Quantity",
    "Range", "Response", "Series", "Site", "State", "Summary", "TestScores", "TrialPhase", "TrialResult", "TrialSpec",
    "Variation", "arm_title", "best_arm",
]  # fmt: skip
