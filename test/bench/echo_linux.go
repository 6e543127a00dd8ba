package main

import (
	"bufio"
	"net"
	"strings"
)

// echoCommand makes this program the peer of the control plane: a server that
// answers requests of the same size with replies of the same size and does
// nothing else. It is what socket, scheduler and measuring themselves cost.
const echoCommand = "echo-server"

func echo(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go echoRequests(c) // ends with its connection, at the latest with the process
	}
}

func echoRequests(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 8192)
	for {
		command, err := r.ReadString('\n')
		for line := command; err == nil && line != "\r\n"; {
			line, err = r.ReadString('\n')
		}
		if err != nil {
			return
		}
		reply := "removed\r\n"
		if strings.HasPrefix(command, "update") {
			reply = "127.0.0.1 40000\r\n"
		}
		if _, err := c.Write([]byte(reply)); err != nil {
			return
		}
	}
}
