"""On the primary: let the two initiators of iscsi-test-cu use one LUN (``TARGET LUN PASSWORD``).

``replicatorctl target apply`` takes the ACLs away again: they are not in the topology.
"""

import sys

from rtslib_fb import TPG, FabricModule, MappedLUN, NodeACL, Target

INITIATORS = (
    "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test",
    "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test-2",
)

target, lun, password = sys.argv[1:]
tpg = TPG(Target(FabricModule("iscsi"), target, mode="lookup"), 1, mode="lookup")
for initiator in INITIATORS:
    acl = NodeACL(tpg, initiator, mode="any")
    acl.chap_userid = "conformance"
    acl.chap_password = password
    MappedLUN(acl, int(lun), int(lun), write_protect=False)
