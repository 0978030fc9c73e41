package meta

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	maxContainers   = 512     // cached containers, of at most 2 KiB each
	maxContainerDoc = 1 << 20 // bytes that are read of a runtime's file
)

// container is what a runtime's state says of a container. It is read from files, so that no runtime's
// socket, which gives power over the node, need be opened.
type container struct {
	name      string // container.name: Docker's
	service   string // the name for service.name: of the container in its pod, the compose service, or name
	namespace string // the compose project
	k8sName   string // k8s.container.name
	pod       string // k8s.pod.name
	podSpace  string // k8s.namespace.name
	podUID    string // k8s.pod.uid
}

// bundles are the files that hold a container's annotations, with the container's ID for %s: an OCI
// runtime bundle's config.json under containerd (also as k3s, k0s and MicroK8s run it) and CRI-O.
var bundles = []string{
	"run/containerd/io.containerd.runtime.v2.task/k8s.io/%s/config.json",
	"run/containers/storage/overlay-containers/%s/userdata/config.json",
	"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/%s/config.json",
	"run/k0s/containerd/io.containerd.runtime.v2.task/k8s.io/%s/config.json",
	"var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task/k8s.io/%s/config.json",
}

// dockerState is where Docker keeps a container's name and labels.
const dockerState = "var/lib/docker/containers/%s/config.v2.json"

// runtimes reads what container runtimes keep of their containers. A container's names never change.
type runtimes struct {
	root  string
	count *counters
	known *lru.Cache[string, container] // by ID; also those of which nothing was found
}

func newRuntimes(root string, count *counters) (*runtimes, error) {
	known, err := lru.New[string, container](maxContainers)
	if err != nil {
		return nil, fmt.Errorf("make the container cache: %w", err)
	}
	return &runtimes{root: root, count: count, known: known}, nil
}

// container returns what is known of the container with this ID, which locate has checked: it is part of
// a file's name here.
func (r *runtimes) container(id string) container {
	if id == "" {
		return container{}
	}
	if c, ok := r.known.Get(id); ok {
		return c
	}
	c := r.read(id)
	for _, s := range []*string{&c.name, &c.service, &c.namespace, &c.k8sName, &c.pod, &c.podSpace, &c.podUID} {
		*s = r.count.clean(*s, maxValue)
	}
	r.known.Add(id, c)
	return c
}

func (r *runtimes) read(id string) container {
	for _, bundle := range bundles {
		var spec struct {
			Annotations map[string]string `json:"annotations"`
		}
		if r.decode(fmt.Sprintf(bundle, id), &spec) {
			return pod(spec.Annotations)
		}
	}
	var state struct {
		Name   string
		Config struct{ Labels map[string]string }
	}
	if !r.decode(fmt.Sprintf(dockerState, id), &state) {
		return container{}
	}
	c := pod(state.Config.Labels)
	c.name = base(state.Name)
	if c.service == "" {
		c.service = first(state.Config.Labels["com.docker.compose.service"], c.name)
		c.namespace = state.Config.Labels["com.docker.compose.project"]
	}
	return c
}

// pod reads the annotations of containerd's CRI plugin, or those that CRI-O and Docker's shim write.
func pod(a map[string]string) container {
	c := container{
		k8sName:  first(a["io.kubernetes.cri.container-name"], a["io.kubernetes.container.name"]),
		pod:      first(a["io.kubernetes.cri.sandbox-name"], a["io.kubernetes.pod.name"]),
		podSpace: first(a["io.kubernetes.cri.sandbox-namespace"], a["io.kubernetes.pod.namespace"]),
		podUID:   first(a["io.kubernetes.cri.sandbox-uid"], a["io.kubernetes.pod.uid"]),
	}
	c.service = c.k8sName
	return c
}

func first(a ...string) string {
	for _, s := range a {
		if s != "" {
			return s
		}
	}
	return ""
}

// decode reads a file of JSON, and tells whether there was one. Only what into has fields for is kept,
// so that the environments that these files hold too are not.
func (r *runtimes) decode(name string, into any) bool {
	file, err := os.Open(filepath.Join(r.root, name))
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			r.count.denied.Add(1)
		}
		return false
	}
	defer file.Close()
	if err := json.NewDecoder(io.LimitReader(file, maxContainerDoc)).Decode(into); err != nil {
		r.count.malformed.Add(1)
		return false
	}
	return true
}
