"""Options that several rows share: a type, a bound and a sentence each. Defaults stand in the rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Clip = Annotated[float, Field(gt=0, lt=1, description="How far the ratio may fall below 1 before its gradient is cut.")]
ClipHigh = Annotated[float, Field(gt=0, description="How far the ratio may rise above 1 before its gradient is cut.")]
LogClip = Annotated[float, Field(gt=0, le=20, description="How far the log-ratio may fall before its gradient is cut.")]
LogClipHigh = Annotated[
    float, Field(gt=0, le=20, description="How far the log-ratio may rise before its gradient is cut.")
]
CapLow = Annotated[float, Field(ge=0, lt=1, description="Least weight of a token, in place of a smaller ratio.")]
CapHigh = Annotated[float, Field(ge=1, description="Largest weight of a token, in place of a larger ratio.")]
OuterLow = Annotated[
    float, Field(gt=0, lt=1, description="How far below 1 a ratio counts again where its gradient pulls it back up.")
]
OuterHigh = Annotated[
    float, Field(gt=0, description="How far above 1 a ratio counts again where its gradient pulls it back down.")
]
Importance = Annotated[bool, Field(description="Whether a token's gradient is multiplied by its ratio.")]
SequenceRatio = Annotated[
    bool, Field(description="Whether the ratio is that of the whole sample instead of each token.")
]
Length = Annotated[int, Field(ge=1, description="Divisor of every sample's token sum, in tokens.")]
Temperature = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="Difference of advantage that multiplies a weight by e.")
]
Gate = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="How fast the gradient fades as the ratio leaves 1.")
]
Shift = Annotated[
    float, Field(allow_inf_nan=False, description="What is added to the mean reward to make the baseline.")
]
Penalty = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="Coefficient of the squared log-ratio to the sampling policy.")
]
Tau = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False, description="Weight of staying near the sampling policy against the reward."),
]
SoftBaseline = Annotated[bool, Field(description="Whether the baseline is the soft maximum of rewards, not the mean.")]
TemperatureMin = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="Lowest temperature that the weights may be given.")
]
OverlongLength = Annotated[
    int, Field(ge=0, description="Tokens at which an answer has lost a whole point of reward; 0 takes none away.")
]
OverlongBuffer = Annotated[
    int, Field(ge=0, description="Tokens before overlong_length over which that point is lost, in equal parts.")
]
Discount = Annotated[float, Field(gt=0, le=1, description="Factor by which a reward shrinks for each token before it.")]
Trace = Annotated[
    float, Field(ge=0, le=1, description="How far credit trusts the reward (1) instead of the critic's next value (0).")
]
Whiten = Annotated[bool, Field(description="Whether advantages are normalised over the update's tokens.")]
ValueClip = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="How far the critic may move from its old value in one step.")
]
CriticLr = Annotated[float, Field(gt=0, allow_inf_nan=False, description="Learning rate of the critic's own AdamW.")]
RewardCoef = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False, description="Share of the group-centred reward that is added to the credit."),
]
