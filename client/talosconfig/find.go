package talosconfig

import (
	"errors"
	"os"
	"path/filepath"
)

// InClusterPath is where a pod with access to the API finds its file.
const InClusterPath = "/var/run/secrets/talos.dev/config"

// Find answers which file to use: flag if it is set, else $TALOSCONFIG, else
// $XDG_CONFIG_HOME/talos/config.yaml if XDG_CONFIG_HOME is defined, else
// $HOME/.talos/config. Where neither of the last two exists but the pod's file
// does, that one.
func Find(flag string, getenv func(string) string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if path := getenv("TALOSCONFIG"); path != "" {
		return path, nil
	}
	path := userPath(getenv)
	if path != "" && exists(path) {
		return path, nil
	}
	if exists(InClusterPath) {
		return InClusterPath, nil
	}
	if path == "" {
		return "", errors.New("find talosconfig: none of --talosconfig, $TALOSCONFIG, $XDG_CONFIG_HOME and $HOME is set")
	}
	return path, nil
}

func userPath(getenv func(string) string) string {
	if dir := getenv("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "talos", "config.yaml")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".talos", "config")
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
