// Go's net/smtp: SendMail with a message from a file.
package main

import (
	"fmt"
	"net/smtp"
	"os"
)

func main() {
	message, err := os.ReadFile(os.Getenv("MESSAGE"))
	if err == nil {
		to := []string{os.Getenv("TO"), os.Getenv("ALSO"), os.Getenv("COPY"), os.Getenv("BLIND")}
		server := os.Getenv("HOST") + ":" + os.Getenv("PORT")
		var auth smtp.Auth
		if login := os.Getenv("LOGIN"); login != "" {
			auth = smtp.PlainAuth("", login, os.Getenv("PASSWORD"), os.Getenv("HOST"))
			// It trusts what the system trusts, which includes this file.
			os.Setenv("SSL_CERT_FILE", os.Getenv("CA"))
		}
		err = smtp.SendMail(server, auth, os.Getenv("FROM"), to, message)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
