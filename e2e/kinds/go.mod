// Modules that contain definitions of kinds which the chart can create objects of. Nothing in them is compiled: the tests of the chart
// read the definitions.
module selvage.dev/e2e/kinds

go 1.26.0

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.4.1
)
