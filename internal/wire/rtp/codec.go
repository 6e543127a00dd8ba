package rtp

import "strconv"

// staticNames are the names that readers of session documents know, by payload
// type (RFC 3551 section 6, in the spelling of the original program).
var staticNames = map[uint8]string{
	0: "G711u", 1: "1016", 2: "G721", 3: "GSM", 4: "G723", 5: "DVI4", 6: "DVI4", 7: "LPC", 8: "G711a", 9: "G722",
	10: "L16", 11: "L16", 14: "MPA", 15: "G728", 18: "G729", 25: "CelB", 26: "JPEG", 28: "nv",
	31: "H261", 32: "MPV", 33: "MP2T", 34: "H263",
}

// ComfortNoise is the payload type of RFC 3389: it fills silence and says
// nothing about the codec of a call.
const ComfortNoise = 13

// CodecName names a payload type as session documents do.
func CodecName(payloadType uint8) string {
	if name, ok := staticNames[payloadType]; ok {
		return name
	}
	if payloadType > 95 {
		return "Dynamic(" + strconv.Itoa(int(payloadType)) + ")"
	}
	return "Unknown(" + strconv.Itoa(int(payloadType)) + ")"
}
