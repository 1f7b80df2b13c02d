"""Clauses about the state of a node after a signal or a defect ended a command early."""

from __future__ import annotations

AS_BEFORE = "the node is as it was before"
HALF_DONE = "some files are new and some are old; run om-agent apply again, which puts all of them right"
APPLIED = "what the metadata says is applied, and whether messaging works was not seen to the end"
NOTHING_CHANGED = "it had changed nothing"
HALF_DRAINED = "the running router may be drained, wholly or by half; om-agent drain --undo, or its restart, ends that"

# The end of a text that was too long for Heat.
CUT_OFF = "... cut off, {left} characters before the end: om-agent plan and om-agent verify, on the node, say all of it"
