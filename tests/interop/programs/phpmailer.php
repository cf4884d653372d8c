<?php
// PHPMailer, over SMTP or (last word of the command line but one) by sendmail.
require '/usr/share/php/libphp-phpmailer/autoload.php';

$mail = new PHPMailer\PHPMailer\PHPMailer(true);
if ($argv[1] === 'sendmail') {
    $mail->isSendmail();
} else {
    $mail->isSMTP();
    $mail->Host = getenv('HOST');
    $mail->Port = (int) getenv('PORT');
    if (getenv('LOGIN')) {
        $mail->SMTPAuth = true;
        $mail->Username = getenv('LOGIN');
        $mail->Password = getenv('PASSWORD');
        $mail->SMTPSecure = ['clear' => '', 'starttls' => 'tls', 'implicit' => 'ssl'][getenv('TLS')];
        $mail->SMTPOptions = ['ssl' => ['cafile' => getenv('CA')]];
    }
}
$mail->CharSet = 'UTF-8';
$mail->setFrom(getenv('FROM'), getenv('FROM_NAME'));
$mail->addAddress(getenv('TO'));
$mail->addAddress(getenv('ALSO'));
$mail->addCC(getenv('COPY'));
$mail->addBCC(getenv('BLIND'));
$mail->Subject = getenv('SUBJECT');
$mail->Body = file_get_contents(getenv('TEXT'));
$mail->addAttachment(getenv('ATTACHMENT'), 'picture.bin');
try {
    $mail->send();
} catch (PHPMailer\PHPMailer\Exception $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
