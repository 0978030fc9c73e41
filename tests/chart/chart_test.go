// Package chart holds the chart to Helm's own linter and its rendered objects to Kubernetes' types. It is a module of its own,
// as both take their time to compile.
package chart

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const path = "../../deploy/chart"

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render answers the objects by their kinds, each decoded strictly.
func render(t *testing.T, values map[string]any) map[string]any {
	t.Helper()
	c := load(t)
	all, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "tracer", Namespace: "ambit-system"}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(c, all)
	if err != nil {
		t.Fatal(err)
	}
	objects := make(map[string]any)
	for name, text := range files {
		if !strings.HasSuffix(name, ".yaml") || strings.TrimSpace(text) == "" {
			continue
		}
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		into, known := map[string]any{
			"DaemonSet": &appsv1.DaemonSet{}, "ConfigMap": &corev1.ConfigMap{}, "Service": &corev1.Service{}, "ServiceAccount": &corev1.ServiceAccount{},
		}[kind.Kind]
		if !known {
			t.Fatalf("%s is a %q", name, kind.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
		objects[kind.Kind] = into
	}
	return objects
}

func TestLint(t *testing.T) {
	lint := action.NewLint()
	lint.Strict = true
	result := lint.Run([]string{path}, nil)
	for _, m := range result.Messages {
		if !strings.Contains(m.Err.Error(), "icon is recommended") {
			t.Error(m)
		}
	}
}

func TestObjects(t *testing.T) {
	objects := render(t, nil)
	if got := slices.Sorted(maps.Keys(objects)); !slices.Equal(got, []string{"ConfigMap", "DaemonSet", "ServiceAccount"}) {
		t.Errorf("the objects are %v", got)
	}
	set := objects["DaemonSet"].(*appsv1.DaemonSet)
	pod := &set.Spec.Template.Spec
	if !pod.HostPID || pod.HostNetwork || pod.PriorityClassName != "system-node-critical" || pod.Tolerations[0].Operator != corev1.TolerationOpExists ||
		set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || *pod.AutomountServiceAccountToken {
		t.Errorf("the pod is %+v", pod)
	}
	for name, value := range set.Spec.Selector.MatchLabels {
		if set.Spec.Template.Labels[name] != value {
			t.Errorf("the selector's %s is none of the pod's", name)
		}
	}
	container := &pod.Containers[0]
	security := container.SecurityContext
	if *security.Privileged || *security.AllowPrivilegeEscalation || !*security.ReadOnlyRootFilesystem || security.Capabilities.Drop[0] != "ALL" {
		t.Errorf("its rights are %+v", security)
	}
	// The same capabilities as the service has, and as the documents name.
	unit, err := os.ReadFile("../../packaging/systemd/ambit.service")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(unit), "\nCapabilityBoundingSet=")
	line, _, _ = strings.Cut(line, "\n")
	var have []string
	for _, c := range security.Capabilities.Add {
		have = append(have, "CAP_"+string(c))
		if !strings.Contains(string(docs), "| `CAP_"+string(c)+"` |") {
			t.Errorf("docs/security.md does not say what CAP_%s is for", c)
		}
	}
	if !slices.Equal(have, strings.Fields(line)) {
		t.Errorf("the capabilities are %v, the service has %s", have, line)
	}
	env := make(map[string]string)
	for _, e := range container.Env {
		env[e.Name] = e.Value
	}
	if env["AMBIT_ADMIN"] != "$(POD_IP):9473" || !strings.HasPrefix(env["AMBIT_SOCKET"], "/run/ambit/") {
		t.Errorf("the environment is %v", env)
	}
	mounted := make(map[string]bool)
	for _, m := range container.VolumeMounts {
		mounted[m.Name] = true
	}
	for _, v := range pod.Volumes {
		if !mounted[v.Name] {
			t.Errorf("volume %s is mounted nowhere", v.Name)
		}
	}
}

// The configuration that the chart makes is one that ambit takes, with the environment that the pod has.
func TestConfiguration(t *testing.T) {
	objects := render(t, map[string]any{"remoteSampling": map[string]any{"port": 5778}})
	if objects["Service"] == nil {
		t.Error("remote sampling has no service")
	}
	file := filepath.Join(t.TempDir(), "ambit.yaml")
	if err := os.WriteFile(file, []byte(objects["ConfigMap"].(*corev1.ConfigMap).Data["ambit.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "go", "run", "./cmd/ambit", "config", "--config", file)
	c.Dir = "../.."
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, e := range objects["DaemonSet"].(*appsv1.DaemonSet).Spec.Template.Spec.Containers[0].Env {
		if e.Value != "" {
			c.Env = append(c.Env, e.Name+"="+strings.ReplaceAll(e.Value, "$(POD_IP)", "10.0.0.9"))
		}
	}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "10.0.0.9:9473") || !strings.Contains(string(out), "10.0.0.9:5778") || !strings.Contains(string(out), "budget: 100") {
		t.Errorf("ambit config: %v\n%s", err, out)
	}
}

func TestSchemaRefuses(t *testing.T) {
	c := load(t)
	for name, values := range map[string]map[string]any{
		"a value that is none": {"imagine": 1}, "a port that is none": {"metrics": map[string]any{"port": 99999}},
		"a rate that is none":    {"config": map[string]any{"sample_rate": 2}},
		"a setting that is none": {"config": map[string]any{"sample_rat": 1}},
		"a policy that is none":  {"image": map[string]any{"pullPolicy": "Perhaps"}},
	} {
		if _, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "x"}, chartutil.DefaultCapabilities); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
