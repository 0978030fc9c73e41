package meta

import (
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	id1 = "3f1c9a0b7d5e4f6a8b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a"
	id2 = "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999"
	uid = "0b9d3a5e-1c2d-4e3f-8a9b-7c6d5e4f3a2b"
)

func TestLocate(t *testing.T) {
	under := strings.ReplaceAll(uid, "-", "_")
	for _, test := range []struct {
		about, path string
		want        place
	}{
		{"the root", "/", place{}},
		{"a system service", "/system.slice/nginx.service", place{unit: "nginx"}},
		{"a service in a slice of its own", "/system.slice/system-postgresql.slice/postgresql@15-main.service", place{unit: "postgresql@15-main"}},
		{"a service that delegates its cgroup", "/system.slice/foo.service/workers/3", place{unit: "foo"}},
		{"a socket's own cgroup", "/system.slice/web.socket", place{unit: "web"}},
		{"a service started for one connection", "/system.slice/system-echo.slice/echo@7-10.0.0.1:80-10.0.0.2:51111.service", place{unit: "echo"}},
		{"the same over IPv6, with a pidfd", "/system.slice/system-echo.slice/echo@7-[::1]:80-[::1]:51111_8812.service", place{unit: "echo"}},
		{"an escaped name", `/system.slice/my\x2dapp.service`, place{unit: "my-app"}},
		{"a name that is no escape", `/system.slice/my\xzz.service`, place{unit: `my\xzz`}},
		{"a name with a colon", "/system.slice/dbus-:1.2-org.example.Problems@0.service", place{unit: "dbus-:1.2-org.example.Problems@0"}},
		{"a name that the kernel uses", "/system.slice/_cpu.service", place{unit: "cpu"}},
		{"a made-up name", "/system.slice/run-u42.service", place{}},
		{"a made-up name of another form", "/system.slice/run-r0123456789abcdef0123456789abcdef.service", place{}},
		{"a made-up name of the newest form", "/system.slice/run-p812-i9921.service", place{}},
		{"a service whose name begins like one", "/system.slice/run-unit.service", place{unit: "run-unit"}},
		{"systemd itself", "/init.scope", place{}},
		{"a login session", "/user.slice/user-1000.slice/session-3.scope", place{}},
		{"a user's manager", "/user.slice/user-1000.slice/user@1000.service/init.scope", place{}},
		{"a user's service", "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service", place{unit: "syncthing"}},
		{"a desktop's application", `/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.example.Web\x2dShop@817.service`, place{unit: "org.example.Web-Shop"}},
		{"a system service named like one", "/system.slice/app-server.service", place{unit: "app-server"}},
		{"a terminal's scope", "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-" + uid + ".scope", place{}},

		{"containerd under systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + id1 + ".scope", place{container: id1, pod: uid}},
		{"a guaranteed pod has no class", "/kubepods.slice/kubepods-pod" + under + ".slice/cri-containerd-" + id1 + ".scope", place{container: id1, pod: uid}},
		{"CRI-O under systemd, with its inner cgroup", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + under + ".slice/crio-" + id1 + ".scope/container", place{container: id1, pod: uid}},
		{"CRI-O's monitor", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + under + ".slice/crio-conmon-" + id1 + ".scope", place{pod: uid}},
		{"Docker's shim under systemd", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + under + ".slice/docker-" + id1 + ".scope", place{container: id1, pod: uid}},
		{"cgroupfs", "/kubepods/burstable/pod" + uid + "/" + id1, place{container: id1, pod: uid}},
		{"cgroupfs, guaranteed", "/kubepods/pod" + uid + "/" + id1, place{container: id1, pod: uid}},
		{"a static pod", "/kubepods/burstable/pod0123456789abcdef0123456789abcdef/" + id1, place{container: id1, pod: "0123456789abcdef0123456789abcdef"}},
		{"mixed drivers", "/system.slice/containerd.service/kubepods-besteffort-pod" + under + ".slice:cri-containerd:" + id1, place{container: id1, pod: uid}},
		{"a pod seen from another cgroup namespace", "/../../kubepods-burstable-pod" + under + ".slice/cri-containerd-" + id1 + ".scope", place{container: id1, pod: uid}},
		{"kind", "/system.slice/docker-" + id1 + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + under + ".slice/cri-containerd-" + id2 + ".scope", place{container: id2, pod: uid}},
		{"kind with cgroupfs", "/docker/" + id1 + "/kubelet/kubepods/burstable/pod" + uid + "/" + id2, place{container: id2, pod: uid}},
		{"Docker in a pod", "/kubepods/burstable/pod" + uid + "/" + id1 + "/docker/" + id2, place{container: id2, pod: uid}},
		{"the runtime's own service", "/system.slice/containerd.service", place{unit: "containerd"}},

		{"Docker", "/system.slice/docker-" + id1 + ".scope", place{container: id1}},
		{"Docker with cgroupfs", "/docker/" + id1, place{container: id1}},
		{"a colon before a container's scope", "/pod:runtime-" + id1 + ".scope", place{container: id1}},
		{"podman", "/machine.slice/libpod-" + id1 + ".scope/container", place{container: id1}},
		{"podman's monitor", "/machine.slice/libpod-conmon-" + id1 + ".scope", place{}},
		{"podman without root", "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope/container", place{container: id1}},
		{"a container that is its unit's", "/system.slice/shop.service/libpod-payload-" + id1, place{container: id1, unit: "shop"}},
		{"systemd in a container", "/system.slice/docker-" + id1 + ".scope/system.slice/nginx.service", place{container: id1, unit: "nginx"}},
		{"a unit's name with a container's ID in a hostile place", "/user.slice/" + id1[:63] + "g", place{}},
	} {
		if got := locate(test.path); got != test.want {
			t.Errorf("%s: locate(%q) = %+v, want %+v", test.about, test.path, got, test.want)
		}
	}
}

func TestLocateLines(t *testing.T) {
	for _, test := range []struct {
		about, lines string
		want         place
	}{
		{"v2 alone", "0::/system.slice/a.service\n", place{unit: "a"}},
		{"v2 comes before v1", "3:cpu:/docker/" + id1 + "\n0::/system.slice/a.service\n", place{unit: "a"}},
		{"a container that v2 does not show", "3:cpu,cpuacct:/docker/" + id1 + "\n1:name=systemd:/docker/" + id1 + "\n0::/\n", place{container: id1}},
		{"a cgroup that was removed", "0::/system.slice/a.service (deleted)\n", place{unit: "a"}},
		{"nothing", "", place{}},
		{"no lines of this form", "::::\n\n0\n", place{}},
	} {
		if got := locateLines(test.lines); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.about, got, test.want)
		}
	}
}

func FuzzLocateLines(f *testing.F) {
	f.Add("0::/system.slice/a@\\x2d.service\n")
	f.Add("0::/kubepods/burstable/pod" + uid + "/" + id1)
	f.Add("0::/user@1/app-\xff.service:" + id1)
	m := &Meta{}
	f.Fuzz(func(t *testing.T, lines string) {
		p := m.clearPlace(locateLines(lines))
		if !utf8.ValidString(p.unit) || len(p.unit) > maxValue {
			t.Errorf("unit %q", p.unit)
		}
		if p.container != "" && len(p.container) != 64 || strings.ContainsAny(p.container, "/.") {
			t.Errorf("container %q", p.container)
		}
	})
}
