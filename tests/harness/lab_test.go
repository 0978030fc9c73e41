package harness_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/tests/harness"
	"ambit/tests/harness/labtest"
)

// hold is the role of a process that makes a lab, with a program in it that has a child, and waits for its end.
func hold([]string) error {
	lab, err := harness.New(harness.Config{Prefix: "h"})
	if err != nil {
		return err
	}
	ns, err := lab.Namespace("held")
	if err != nil {
		return err
	}
	if _, err := lab.Dir(); err != nil {
		return err
	}
	if _, err := ns.Start(harness.Program{Path: "sh", Args: []string{"-c", "sleep 1000 & echo $! ; wait"}, Stdout: os.Stdout}); err != nil {
		return err
	}
	fmt.Println(lab.ID())
	select {}
}

// holder starts a process in the role hold and returns it with the lab's name and the grandchild's pid.
func holder(t *testing.T) (process *exec.Cmd, id, pid string) {
	t.Helper()
	program, err := harness.RoleProgram("hold")
	if err != nil {
		t.Fatal(err)
	}
	process = exec.Command(program.Path, program.Args...)
	process.Stderr = os.Stderr
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	lines := bufio.NewScanner(out)
	for (id == "" || pid == "") && lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, "h-") {
			id = line
		} else {
			pid = line
		}
	}
	if len(traces(t, id, pid)) == 0 {
		t.Fatal("the lab of another process cannot be seen")
	}
	return process, id, pid
}

// traces is what can be seen of a lab and a process.
func traces(t *testing.T, id, pid string) []string {
	t.Helper()
	root, err := harness.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, pattern := range []string{"/run/netns/" + id + "-*", filepath.Join(root, id), "/run/ambit-labs/" + id, "/run/" + id} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	// A child that nobody has waited for yet still has its directory, and is a zombie.
	if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
		found = append(found, "process "+pid)
	}
	return found
}

func gone(t *testing.T, id, pid string) {
	t.Helper()
	var left []string
	for range 100 {
		if left = traces(t, id, pid); len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("left: %v", left)
}

// What a killed process leaves behind is cleared away by the next lab.
func TestSweepAfterKill(t *testing.T) {
	process, id, pid := holder(t)
	if err := harness.Sweep(); err != nil {
		t.Fatal(err)
	}
	if len(traces(t, id, pid)) < 5 {
		t.Fatalf("a sweep took from a lab that is alive; it has %v", traces(t, id, pid))
	}
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait()
	labtest.New(t)
	gone(t, id, pid)
}

// A process that is asked to end closes its labs first, and ends as if it had not caught the signal.
func TestCloseOnSignal(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		process, id, pid := holder(t)
		if err := process.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = process.Wait()
		if status := process.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != sig {
			t.Errorf("after %v the process ended with %v", sig, process.ProcessState)
		}
		gone(t, id, pid)
	}
}

// Close ends what runs, and nothing can be added afterwards.
func TestCloseTakesAll(t *testing.T) {
	lab, err := harness.New(harness.Config{Prefix: "h"})
	if err != nil {
		t.Fatal(err)
	}
	a, err := lab.Namespace("a")
	if err != nil {
		t.Fatal(err)
	}
	program, err := harness.RoleProgram("serve", "8080")
	if err != nil {
		t.Fatal(err)
	}
	process, err := a.Start(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	gone(t, lab.ID(), fmt.Sprint(process.PID()))
	if _, err := lab.Namespace("b"); err == nil {
		t.Error("a closed lab makes namespaces")
	}
	if _, err := a.Start(program); err == nil {
		t.Error("a closed lab starts programs")
	}
	if err := lab.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

// A program that outlives its lab is named.
func TestCloseNamesWhatIsLeft(t *testing.T) {
	lab, err := harness.New(harness.Config{Prefix: "h"})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := lab.Namespace("a")
	if err != nil {
		t.Fatal(err)
	}
	// Not the lab's process: nobody told it.
	var stray *exec.Cmd
	err = ns.Do(func() error {
		stray = exec.Command("sleep", "1000")
		return stray.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Close()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("/proc/%d", stray.Process.Pid)) {
		t.Errorf("close: %v", err)
	}
	_ = stray.Process.Kill()
	_ = stray.Wait()
}

// Every backend of iptables that this kernel has takes the rules whole, so that whichever a machine has will do.
func TestRulesWithEveryBackend(t *testing.T) {
	lab := labtest.New(t)
	ctx := context.Background()
	tried := 0
	for _, variant := range []string{"nft", "legacy"} {
		ns, err := lab.Namespace(variant)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ns.Run(ctx, "iptables-"+variant, "-t", "nat", "-S"); err != nil {
			t.Logf("this machine cannot use iptables-%s: %v", variant, err)
			continue
		}
		tried++
		for family, tool := range map[string]string{"v4": "iptables-" + variant, "v6": "ip6tables-" + variant} {
			rules, err := os.ReadFile("rules/inpod." + family + ".rules")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ns.RunProgram(ctx, harness.Program{
				Path: tool + "-restore", Args: []string{"--noflush"}, Stdin: bytes.NewReader(rules),
			}); err != nil {
				t.Error(err)
				continue
			}
			saved, err := ns.Run(ctx, tool+"-save")
			if want, got := bytes.Count(rules, []byte("\n-A ")), strings.Count(saved, "\n-A "); err != nil || got != want {
				t.Errorf("%s holds %d rules of %d: %v\n%s", tool, got, want, err, saved)
			}
		}
	}
	if tried == 0 {
		t.Error("no backend of iptables works here: install the package iptables")
	}
}

// Many connections of one pod to another share an HBONE connection.
func TestHBONEIsShared(t *testing.T) {
	p := pair(t, harness.PairConfig{})
	start(t, p.B.Namespace, "8080")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := p.A.Run(ctx, "wrk", "-t1", "-c50", "-d1", "http://10.96.0.10/"); err != nil {
		t.Fatal(err)
	}
	out, err := p.A.Run(ctx, "ss", "-Htn", "state", "established", "dport = :15008")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out, "\n"); n != 1 {
		t.Errorf("%d HBONE connections for 50 connections of a:\n%s", n, out)
	}
}

// ztunnel's processes and the pods' are in cgroups of their own, as kubelet makes them.
func TestCgroups(t *testing.T) {
	p := pair(t, harness.PairConfig{})
	process := start(t, p.B.Namespace, "8080")
	of := func(pid int) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, path, _ := strings.Cut(string(text), "0::")
		path, _, _ = strings.Cut(path, "\n")
		return path
	}
	app, proxy := of(process.PID()), of(p.Nodes[0].Ztunnel.PID())
	for _, path := range []string{app, proxy} {
		if !strings.Contains(path, "/kubepods.slice/kubepods-pod") || !strings.HasSuffix(path, ".scope") {
			t.Errorf("a container's cgroup is %s", path)
		}
	}
	if app == proxy {
		t.Error("the application is in ztunnel's cgroup")
	}
	if !strings.Contains(app, p.B.Container.ContainerID) {
		t.Errorf("the cgroup %s does not name container %s", app, p.B.Container.ContainerID)
	}
}
