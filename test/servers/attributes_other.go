//go:build !linux

package servers

import "syscall"

func attributes(s *Server) *syscall.SysProcAttr {
	if s.account == nil {
		return nil
	}
	uid, gid := s.ids()
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}
