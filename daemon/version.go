package daemon

// Version is ambit's version, set by the linker (-X ambit/daemon.Version=...).
var Version = "dev"
