;;; Emacs in batch mode composes in message-mode and sends by smtpmail, or (WAY) by sendmail.  -*- lexical-binding: t -*-
(require 'message)
(require 'mml)
(require 'smtpmail)
(set-language-environment "UTF-8")
(setq user-full-name (getenv "FROM_NAME")
      user-mail-address (getenv "FROM")
      mail-host-address "client.test"
      message-kill-buffer-on-exit t
      message-interactive t
      mail-interactive t
      smtpmail-smtp-server (getenv "HOST")
      smtpmail-smtp-service (string-to-number (getenv "PORT"))
      smtpmail-local-domain "client.test"
      smtpmail-stream-type 'plain
      message-send-mail-function
      (if (equal (car command-line-args-left) "sendmail") 'message-send-mail-with-sendmail 'smtpmail-send-it))
(setq command-line-args-left nil)
(message-mail (format "%s, %s" (getenv "TO") (getenv "ALSO")) (getenv "SUBJECT")
              `(("Cc" . ,(getenv "COPY")) ("Bcc" . ,(getenv "BLIND"))))
(message-goto-body)
(insert-file-contents (getenv "TEXT"))
(goto-char (point-max))
(mml-attach-file (getenv "ATTACHMENT") "application/octet-stream" nil "attachment")
(unless (message-send) (kill-emacs 1))
