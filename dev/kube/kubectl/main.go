// Command kubectl is the upstream client, linked from its published modules.
//
// The conformance tests and the demo need a client of the same minor version as
// the API that we serve; the one that Debian ships is several years older.
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
