package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"ambit/tests/kernels/report"
)

// probes find out what a kernel has of that which ambit uses, or does without.
var probes = map[string]func() error{
	report.BTF:          func() error { _, err := os.Stat("/sys/kernel/btf/vmlinux"); return absent(err) },
	report.RingBuffer:   func() error { return features.HaveMapType(ebpf.RingBuf) },
	report.Syscall:      func() error { return features.HaveProgramType(ebpf.Syscall) },
	report.Loop:         func() error { return features.HaveProgramHelper(ebpf.SchedCLS, asm.FnLoop) },
	report.ForEach:      func() error { return features.HaveProgramHelper(ebpf.Syscall, asm.FnForEachMapElem) },
	report.SocketNetns:  func() error { return features.HaveProgramHelper(ebpf.SockOps, asm.FnGetNetnsCookie) },
	report.PacketNetns:  func() error { return features.HaveProgramHelper(ebpf.SchedCLS, asm.FnGetNetnsCookie) },
	report.Files:        files,
	report.SocketOfFile: socketOfFile,
	report.TCX:          tcx,
}

// absent makes one error of what is not there.
func absent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return ebpf.ErrNotSupported
	}
	return err
}

// kernelFeatures reports each of them.
func kernelFeatures() (map[string]string, error) {
	detail := map[string]string{}
	var errs []error
	for _, f := range report.KernelFeatures {
		probe, known := probes[f.Name]
		if !known {
			errs = append(errs, fmt.Errorf("probe %q: there is no probe for it", f.Name))
			continue
		}
		switch err := probe(); {
		case err == nil:
			detail[f.Name] = report.Yes
		case errors.Is(err, ebpf.ErrNotSupported):
			detail[f.Name] = report.No
		default:
			errs = append(errs, fmt.Errorf("probe %q: %w", f.Name, err))
		}
	}
	return detail, errors.Join(errs...)
}

// returning is a program that does no more than these instructions.
func returning(spec ebpf.ProgramSpec, instructions ...asm.Instruction) (*ebpf.Program, error) {
	spec.License = "GPL"
	spec.Instructions = append(instructions, asm.Mov.Imm(asm.R0, 0), asm.Return())
	return ebpf.NewProgram(&spec)
}

// overFiles is an iterator over all open files.
var overFiles = ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task_file"}

func files() error {
	program, err := returning(overFiles)
	if err != nil {
		return err
	}
	defer program.Close()
	it, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return err
	}
	return it.Close()
}

// socketOfFile calls the helper with the iterator's file, where there is one.
func socketOfFile() error {
	const file = 24 // its offset in the context, behind meta, task and fd
	program, err := returning(overFiles,
		asm.LoadMem(asm.R1, asm.R1, file, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "end"),
		asm.FnSockFromFile.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
	)
	// The verifier does not know it: any other complaint is one about this probe.
	var verdict *ebpf.VerifierError
	if errors.As(err, &verdict) && strings.Contains(strings.Join(verdict.Log, " "), "invalid func") {
		return ebpf.ErrNotSupported
	}
	if err != nil {
		return err
	}
	return program.Close()
}

// tcx attaches a program to lo by a link.
func tcx() error {
	program, err := returning(ebpf.ProgramSpec{Type: ebpf.SchedCLS})
	if err != nil {
		return err
	}
	defer program.Close()
	const lo = 1 // the index of lo in each network namespace
	l, err := link.AttachTCX(link.TCXOptions{Interface: lo, Program: program, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		return err
	}
	return l.Close()
}
