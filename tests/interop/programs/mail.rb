# Ruby's mail (what Rails sends with), by SMTP.
require 'mail'

env = ENV
begin
  Mail.new(charset: 'UTF-8') do
    from "#{env['FROM_NAME']} <#{env['FROM']}>"
    to [env['TO'], env['ALSO']]
    cc env['COPY']
    bcc env['BLIND']
    subject env['SUBJECT']
    body File.read(env['TEXT'])
    add_file filename: 'picture.bin', content: File.binread(env['ATTACHMENT'])
    delivery_method :smtp, address: env['HOST'], port: env['PORT'].to_i, domain: 'client.test', enable_starttls: false
  end.deliver!
rescue StandardError => e
  warn "#{e.class}: #{e.message}"
  exit 1
end
