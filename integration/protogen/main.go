// Command protogen regenerates every *.pb.go of the module from its .proto
// file. It needs nothing but Go: the compiler is a library, and the two plugins
// are tools of the module at the versions that go.mod pins.
//
//	go run ./integration/protogen           writes the generated files
//	go run ./integration/protogen -check    exits 1 if any of them is not fresh
//
// Run it from the module's root.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const module = "github.com/shoalkv/shoal"

var plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

func main() {
	check := flag.Bool("check", false, "write nothing; exit 1 if a generated file is not fresh")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	sources, err := protoFiles()
	if err != nil {
		return err
	}
	request, err := compile(sources)
	if err != nil {
		return err
	}
	var stale []string
	for _, plugin := range plugins {
		response, err := runPlugin(plugin, request)
		if err != nil {
			return err
		}
		for _, file := range response.GetFile() {
			want := []byte(file.GetContent())
			if have, err := os.ReadFile(file.GetName()); err == nil && bytes.Equal(have, want) {
				continue
			}
			if check {
				stale = append(stale, file.GetName())
				continue
			}
			if err := os.WriteFile(file.GetName(), want, 0o644); err != nil {
				return err
			}
			fmt.Println("wrote", file.GetName())
		}
	}
	if len(stale) > 0 {
		return fmt.Errorf("not fresh: %s\nrun: go run ./integration/protogen", strings.Join(stale, ", "))
	}
	return nil
}

// protoFiles lists the module's .proto files, as slash paths below its root.
func protoFiles() ([]string, error) {
	var files []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".proto") {
			files = append(files, filepath.ToSlash(path))
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no .proto file below the working directory; run it from the module's root")
	}
	return files, err
}

// compile parses and links the sources into a request for a protoc plugin.
func compile(sources []string) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), sources...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{
		Parameter:      proto.String("module=" + module),
		FileToGenerate: sources,
	}
	seen := map[string]bool{}
	var add func(name string, file *descriptorpb.FileDescriptorProto)
	add = func(name string, file *descriptorpb.FileDescriptorProto) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, dependency := range file.GetDependency() {
			if f := files.FindFileByPath(dependency); f != nil {
				add(dependency, protoutil.ProtoFromFileDescriptor(f))
			}
		}
		request.ProtoFile = append(request.ProtoFile, file)
	}
	for _, f := range files {
		add(f.Path(), protoutil.ProtoFromFileDescriptor(f))
	}
	return request, nil
}

// runPlugin runs one of the module's tools as protoc would.
func runPlugin(name string, request *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	input, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	command := exec.Command("go", "tool", name)
	command.Stdin, command.Stderr = bytes.NewReader(input), os.Stderr
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	response := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(output, response); err != nil {
		return nil, fmt.Errorf("%s: unreadable answer: %w", name, err)
	}
	if response.GetError() != "" {
		return nil, fmt.Errorf("%s: %s", name, response.GetError())
	}
	return response, nil
}
