# Ruby's net/smtp sends a message from a file.
require 'net/smtp'

message = File.read(ENV['MESSAGE'])
recipients = ENV.values_at('TO', 'ALSO', 'COPY', 'BLIND')
begin
  Net::SMTP.start(ENV['HOST'], ENV['PORT'].to_i, helo: 'client.test', starttls: false) do |smtp|
    smtp.send_message(message, ENV['FROM'], recipients)
  end
rescue StandardError => e
  warn "#{e.class}: #{e.message}"
  exit 1
end
