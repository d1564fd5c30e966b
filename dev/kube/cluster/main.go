// Command cluster is what a Kubernetes cluster runs, as one program that takes
// the part it is called by: through a link of that name, or as
//
//	cluster PART [FLAG...]
//
// One program instead of seven shares the libraries that all of them link, and
// is linked once.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "time/tzdata"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// commands has every part that is a cobra command; etcd is not one.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	part := filepath.Base(os.Args[0])
	if !known(part) && len(os.Args) > 1 {
		part, os.Args = os.Args[1], os.Args[1:]
	}
	switch {
	case part == "etcd":
		etcdmain.Main(os.Args)
	case known(part):
		os.Exit(cli.Run(commands[part]()))
	default:
		parts := append(slices.Sorted(maps.Keys(commands)), "etcd")
		fmt.Fprintf(os.Stderr, "cluster: %q is no part; wanted one of: %s\n", part, strings.Join(parts, ", "))
		os.Exit(2)
	}
}

func known(part string) bool { return part == "etcd" || commands[part] != nil }
