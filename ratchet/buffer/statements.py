"""Every question the buffer asks its database, built once: building one takes longer than SQLite takes to answer it.

Parameters begin with ``p_``. A column written ``column + 0`` keeps the database from using an index on it where that
would be slow: ``step + 0 <= ...`` holds for nearly all rows, which would all be read in order of step instead of a few
in order of priority; ``evicted_at + 0`` is for the groups of one step or of given numbers, which the indexes over live
groups do not find. The tests read SQLite's plans.
"""

from __future__ import annotations

from sqlalchemy import BindParameter, bindparam, delete, func, insert, or_, select, update

from ratchet.buffer.tables import BUFFERS, FACTS, GROUPS, SAMPLERS, USES

_g, _u = GROUPS.c, USES.c
_buffer: BindParameter[int] = bindparam("p_buffer")
_step: BindParameter[int] = bindparam("p_step")
_mine, _my_uses = _g.buffer_id == _buffer, _u.buffer_id == _buffer
_live = _mine & _g.evicted_at.is_(None)
_still_live = _mine & (_g.evicted_at + 0).is_(None)
_up_to_step = _g.step + 0 <= _step

_entry = select(_g.group_id, _g.step, _g.idx, _g.version, _g.uses, _g.last_used, _g.priority)
"""The fields of `groups.Entry`, in its order."""
_victim = select(_g.group_id, _g.step, _g.sampler_id)

BUFFER = select(BUFFERS).where(BUFFERS.c.buffer_id == _buffer)
SET_TRAINED = update(BUFFERS).where(BUFFERS.c.buffer_id == _buffer).values(trained=bindparam("p_trained"))
SET_PURGED = update(BUFFERS).where(BUFFERS.c.buffer_id == _buffer).values(purged=bindparam("p_purged"))

ADD_SAMPLER = insert(SAMPLERS)
ALL_SAMPLERS = select(SAMPLERS.c.sampler_id, SAMPLERS.c.weights).where(SAMPLERS.c.buffer_id == _buffer)

ADD_GROUP = insert(GROUPS)
ADD_FACTS = insert(FACTS)
SAME_GROUP = select(_g.group_id, _g.sampler_id, _g.evicted_at).where(
    _mine, _g.step == _step, _g.idx == bindparam("p_idx")
)
DELETE_GROUPS = delete(GROUPS).where(_g.group_id.in_(bindparam("p_ids", expanding=True)))
DELETE_FACTS = delete(FACTS).where(FACTS.c.group_id.in_(bindparam("p_ids", expanding=True)))

# Grouped by the version too, so that it is the order of an index, and nothing but that index is read.
COUNT_LIVE = select(_g.step, _g.sampler_id, func.count()).where(_live).group_by(_g.version, _g.step, _g.sampler_id)
INDEXES = select(_g.idx).where(_mine, _g.step == _step).order_by(_g.idx)
ENTRIES = _entry.where(_still_live, _g.step == _step).order_by(_g.idx)
READ_STEP = (
    select(FACTS.c.facts)
    .join(GROUPS, _g.group_id == FACTS.c.group_id)
    .where(_mine, _g.step == _step, _g.admitted == bindparam("p_admitted"))
    .order_by(_g.idx)
)
READ_GROUPS = select(FACTS.c.group_id, FACTS.c.facts).where(FACTS.c.group_id.in_(bindparam("p_ids", expanding=True)))

_rested = or_(_g.last_used.is_(None), _g.last_used < bindparam("p_rested"))
CHOOSE = (
    _entry.where(_live, _up_to_step, _rested, or_(bindparam("p_max_uses") == 0, _g.uses < bindparam("p_max_uses")))
    .order_by(_g.priority.desc(), _g.step.desc(), _g.idx)
    .limit(bindparam("p_limit"))
)

LOG_USES = insert(USES)
SET_USES = (
    update(GROUPS)
    .where(_g.group_id == bindparam("p_id"))
    .values(uses=bindparam("p_uses"), last_used=bindparam("p_last"), priority=bindparam("p_priority"))
)
USES_SINCE = (
    select(_u.group_id, _u.uses, _u.last_used, _u.priority).where(_my_uses, _u.step >= _step).order_by(_u.step.desc())
)
FIRST_USE = select(func.min(_u.step)).where(_my_uses)
FORGET_USES_SINCE = delete(USES).where(_my_uses, _u.step >= _step)
FORGET_USES_BEFORE = delete(USES).where(_my_uses, _u.step < _step)
FORGET_USES_OF = delete(USES).where(_my_uses, _u.step >= _step, _u.group_id == bindparam("p_id"))

SET_EVICTED = update(GROUPS).where(_g.group_id == bindparam("p_id")).values(evicted_at=bindparam("p_step"))
AMONG = _victim.where(_still_live, _g.group_id.in_(bindparam("p_ids", expanding=True)))
OF_STEP = _victim.where(_still_live, _g.step == _step)
OLDER = _victim.where(_live, _g.version < bindparam("p_version"), _up_to_step)
WORST = _victim.where(_live, _up_to_step).order_by(_g.priority, _g.step, _g.idx.desc()).limit(bindparam("p_limit"))
EVICTED_BEFORE = select(_g.group_id).where(_mine, _g.evicted_at < _step).limit(bindparam("p_limit"))

SINCE = select(_g.group_id, _g.sampler_id).where(_mine, _g.step >= _step)
REVIVE = update(GROUPS).where(_mine, _g.evicted_at >= _step, _g.admitted.is_(True)).values(evicted_at=None)
