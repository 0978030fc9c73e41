package meta

import (
	"strings"
	"testing"

	"ambit/l7"
)

func TestContainer(t *testing.T) {
	containerd := `{"ociVersion":"1.1.0","process":{"env":["TOKEN=secret"],"args":["x"]},"annotations":{
		"io.kubernetes.cri.container-name":"server","io.kubernetes.cri.container-type":"container",
		"io.kubernetes.cri.sandbox-name":"shop-7d4b-x2x9k","io.kubernetes.cri.sandbox-namespace":"store","io.kubernetes.cri.sandbox-uid":"` + uid + `"}}`
	crio := `{"annotations":{"io.kubernetes.container.name":"server","io.kubernetes.pod.name":"shop-7d4b-x2x9k",
		"io.kubernetes.pod.namespace":"store","io.kubernetes.pod.uid":"` + uid + `"}}`
	inPod := map[string]string{
		"service.name": "server", "service.namespace": "store", "container.id": id1, "container.name": "", "k8s.container.name": "server",
		"k8s.pod.name": "shop-7d4b-x2x9k", "k8s.pod.uid": uid, "k8s.namespace.name": "store",
	}
	for _, test := range []struct {
		about, file, contents string
		want                  map[string]string
		count                 Stats
	}{
		{about: "containerd", file: "run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id1 + "/config.json", contents: containerd, want: inPod},
		{about: "k3s", file: "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/" + id1 + "/config.json", contents: containerd, want: inPod},
		{about: "CRI-O", file: "run/containers/storage/overlay-containers/" + id1 + "/userdata/config.json", contents: crio, want: inPod},
		{about: "Docker", file: "var/lib/docker/containers/" + id1 + "/config.v2.json", contents: `{"Name":"/web-1","Config":{"Labels":{"x":"y"}}}`,
			want: map[string]string{"service.name": "web-1", "container.name": "web-1", "k8s.container.name": ""}},
		{about: "a compose service", file: "var/lib/docker/containers/" + id1 + "/config.v2.json",
			contents: `{"Name":"/store-web-1","Config":{"Env":["TOKEN=secret"],"Labels":{"com.docker.compose.service":"web","com.docker.compose.project":"store"}}}`,
			want:     map[string]string{"service.name": "web", "service.namespace": "store", "container.name": "store-web-1"}},
		{about: "a pod of Docker's shim", file: "var/lib/docker/containers/" + id1 + "/config.v2.json",
			contents: `{"Name":"/k8s_server_shop","Config":{"Labels":` + crio[len(`{"annotations":`):len(crio)-1] + `}}`,
			want:     map[string]string{"service.name": "server", "k8s.pod.name": "shop-7d4b-x2x9k", "container.name": "k8s_server_shop"}},
		{about: "no runtime's file", file: "run/x", contents: "", want: map[string]string{"service.name": "x", "container.id": id1, "k8s.pod.uid": ""}},
		{about: "no JSON", file: "var/lib/docker/containers/" + id1 + "/config.v2.json", contents: `{"Name":`, want: map[string]string{"service.name": "x"}, count: Stats{Malformed: 1}},
		{about: "another type", file: "var/lib/docker/containers/" + id1 + "/config.v2.json", contents: `{"Name":[]}`, want: map[string]string{"service.name": "x"}, count: Stats{Malformed: 1}},
		{about: "more than is read", file: "var/lib/docker/containers/" + id1 + "/config.v2.json", contents: `{"a":"` + strings.Repeat("a", maxContainerDoc) + `","Name":"/web"}`,
			want: map[string]string{"service.name": "x"}, count: Stats{Malformed: 1}},
		{about: "bytes for a terminal", file: "var/lib/docker/containers/" + id1 + "/config.v2.json", contents: `{"Name":"/w\u001b[2J"}`,
			want: map[string]string{"service.name": "w\ufffd[2J"}, count: Stats{Repaired: 2}},
	} {
		f := newFixture(t)
		f.write(test.file, test.contents)
		f.start(task{pid: 7, ticks: 1, comm: "x", exe: "/bin/x", cgroup: "/system.slice/docker-" + id1 + ".scope"})
		m := f.meta(Config{})
		r := enrich(m, l7.Owner{PID: 7, StartedNS: clockTick})
		check(t, test.about, r, test.want)
		if s := m.Stats(); s.Malformed != test.count.Malformed || s.Repaired != test.count.Repaired || s.Denied != 0 {
			t.Errorf("%s: %+v", test.about, s)
		}
		for _, a := range r.Attributes {
			if strings.Contains(a.Str, "secret") {
				t.Errorf("%s: %s holds the container's environment", test.about, a.Key)
			}
		}
	}
}
