# Tcl's mime and smtp packages.
package require mime
package require smtp

proc slurp {file} {
    set channel [open $file rb]
    set content [read $channel]
    close $channel
    return $content
}
proc word {text} {
    return "=?utf-8?B?[binary encode base64 [encoding convertto utf-8 $text]]?="
}
set text [mime::initialize -canonical text/plain -param {charset utf-8} -encoding base64 -string [slurp $env(TEXT)]]
set attachment [mime::initialize -canonical application/octet-stream -encoding base64 \
    -header {Content-Disposition {attachment; filename="picture.bin"}} -string [slurp $env(ATTACHMENT)]]
set message [mime::initialize -canonical multipart/mixed -parts [list $text $attachment]]
set refused [smtp::sendmessage $message -servers $env(HOST) -ports $env(PORT) -originator $env(FROM) \
    -recipients "$env(TO),$env(ALSO),$env(COPY),$env(BLIND)" \
    -header [list From "[word $env(FROM_NAME)] <$env(FROM)>"] -header [list To "$env(TO), $env(ALSO)"] \
    -header [list Cc $env(COPY)] -header [list Subject [word $env(SUBJECT)]]]
exit [expr {[llength $refused] > 0}]
