import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import javax.mail.Message.RecipientType;
import javax.mail.Session;
import javax.mail.Transport;
import javax.mail.internet.InternetAddress;
import javax.mail.internet.MimeBodyPart;
import javax.mail.internet.MimeMessage;
import javax.mail.internet.MimeMultipart;

/** Jakarta Mail (still in the package javax.mail), with a message that it composes. */
public class JakartaMail {
    public static void main(String[] arguments) throws Exception {
        var env = System.getenv();
        var properties = new Properties();
        properties.put("mail.smtp.host", env.get("HOST"));
        properties.put("mail.smtp.port", env.get("PORT"));
        properties.put("mail.smtp.localhost", "client.test");
        properties.put("mail.mime.charset", "utf-8");
        var message = new MimeMessage(Session.getInstance(properties));
        message.setFrom(new InternetAddress(env.get("FROM"), env.get("FROM_NAME"), "utf-8"));
        message.addRecipients(RecipientType.TO, env.get("TO") + ", " + env.get("ALSO"));
        message.addRecipients(RecipientType.CC, env.get("COPY"));
        message.addRecipients(RecipientType.BCC, env.get("BLIND"));
        message.setSubject(env.get("SUBJECT"), "utf-8");
        var text = new MimeBodyPart();
        text.setText(Files.readString(Path.of(env.get("TEXT"))), "utf-8");
        var attachment = new MimeBodyPart();
        attachment.attachFile(env.get("ATTACHMENT"));
        attachment.setFileName("picture.bin");
        message.setContent(new MimeMultipart(text, attachment));
        Transport.send(message);
    }
}
