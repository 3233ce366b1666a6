"""Networks that answer right, and of which a tempting claim is false: what a method must not be taken in by.

    for null in nulls():                       # 24 of each of five kinds, built one at a time
        net = null.open()
        found = some_method(net, null.task)    # finds on the find split, judges on the held-out one
        false = null.is_false(found.sites)     # a circuit that may be supported has all of `null.known`

Every null passes the accuracy gate (`passes`) on its held-out rows, so that none can be dismissed for what it answers.

- ``labels permuted``: a network with a mechanism, and a task whose answers are dealt to other rows of the find split.
  False: whatever is found from those answers, unless it is the mechanism. True: the mechanism (`known`).
- ``spread``: every head of two layers does an (unequal) share of one job. False: any circuit that is smaller than all
  of it, in particular any half. True: all heads together (`known`).
- ``decoy``: a network with a mechanism, and as many heads and MLPs that do the same work on the same tokens, looking
  where the mechanism looks, and write it to where nothing reads. False: the decoy circuit, and each part of it. True:
  the mechanism.
- ``twin``: the answer comes by a shortcut (the last token unembedded, or a head that finds the only token that can be
  an answer), while heads that look like induction write to where nothing reads. False: that induction answers. True:
  the shortcut. Twins of trained networks are added with `register`.
- ``untrained``: a random network whose unembedding alone was fitted. False: any circuit that is much smaller than the
  network, since no part was made for the task. True: the whole of it (`known`), each part with some effect.
"""

from openwork.zoo.nulls.gate import MARGIN, passes
from openwork.zoo.nulls.kinds import EACH, KINDS, names, null, nulls, register
from openwork.zoo.nulls.record import Null

__all__ = ["EACH", "KINDS", "MARGIN", "Null", "names", "null", "nulls", "passes", "register"]
