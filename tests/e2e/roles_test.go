package e2e

import "ambit/tests/harness"

// roles are what this program is when it is started again inside of a namespace.
var roles = harness.Roles{}
