package l7

import "net/netip"

// DefaultRules are what nobody wants to see, behind the user's rules: probes, scrapes and static files. Dropped requests
// count in the metrics all the same.
func DefaultRules() []Rule {
	read := []string{"GET", "HEAD"}
	drop := RuleAction{Drop: true}
	return []Rule{
		{Name: "health-paths", Action: drop, Match: Conditions{Methods: read, Path: PathCondition{Exact: []string{
			"/healthz", "/readyz", "/livez", "/health", "/ready", "/live", "/health/live", "/health/ready", "/health/started",
			"/-/healthy", "/-/ready", "/actuator/health", "/actuator/health/liveness", "/actuator/health/readiness",
		}}}},
		{Name: "health-agents", Action: drop, Match: Conditions{Headers: HeaderConditions{UserAgent: HeaderCondition{
			Values: []string{"kube-probe", "GoogleHC", "ELB-HealthChecker", "Envoy/HC"},
		}}}},
		// What istio-cni makes of kubelet's own address in an ambient pod.
		{Name: "kubelet", Action: drop, Match: Conditions{Clients: []netip.Addr{
			netip.MustParseAddr("169.254.7.127"), netip.MustParseAddr("fd16:9254:7127:1337:ffff:ffff:ffff:ffff"),
		}}},
		{Name: "grpc-health", Action: drop, Match: Conditions{GRPC: &GRPCCondition{Services: []string{"grpc.health.v1.Health"}}}},
		{Name: "metrics-paths", Action: drop, Match: Conditions{Methods: read, Path: PathCondition{
			Exact: []string{"/metrics", "/stats/prometheus", "/actuator/prometheus"},
		}}},
		{Name: "metrics-agents", Action: drop, Match: Conditions{Headers: HeaderConditions{UserAgent: HeaderCondition{
			Values: []string{"Prometheus"},
		}}}},
		{Name: "favicon", Action: drop, Match: Conditions{Methods: read, Path: PathCondition{Exact: []string{"/favicon.ico"}}}},
		{Name: "static-files", Action: drop, Match: Conditions{Methods: read, Extensions: []string{
			"css", "js", "mjs", "map", "png", "jpg", "jpeg", "gif", "svg", "ico", "webp", "avif", "woff", "woff2", "ttf", "eot",
		}}},
	}
}
