# Ruby's net/smtp sends a message from a file.
require 'net/smtp'

message = File.read(ENV['MESSAGE'])
recipients = ENV.values_at('TO', 'ALSO', 'COPY', 'BLIND')
more = { starttls: false }
if ENV['LOGIN']
  more = { user: ENV['LOGIN'], secret: ENV['PASSWORD'], authtype: :plain, starttls: ENV['TLS'] == 'starttls' && :always,
           tls: ENV['TLS'] == 'implicit', ssl_context_params: { ca_file: ENV['CA'] } }
end
begin
  Net::SMTP.start(ENV['HOST'], ENV['PORT'].to_i, helo: 'client.test', **more) do |smtp|
    smtp.send_message(message, ENV['FROM'], recipients)
  end
rescue StandardError => e
  warn "#{e.class}: #{e.message}"
  exit 1
end
