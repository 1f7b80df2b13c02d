# frozen_string_literal: true

require_relative '../../../puppet_x/om_messaging/ini_text'

Puppet::Type.type(:ini_setting).provide(:om_messaging) do
  desc "Edits one key of a file that oslo.config reads, and leaves every other byte of the file alone.

  Writing keys and removing them again gives the file back as it was. With neither section nor setting it makes the
  file itself, empty and readable by its owner and group only. It has to be asked for by name."

  # Never the default: other modules' ini_setting resources keep the provider that they know.
  def self.specificity
    -1
  end

  def exists?
    return File.exist?(resource[:path]) if resource[:setting].nil?

    !text.get(resource[:section], resource[:setting]).nil?
  end

  def value
    text.get(resource[:section], resource[:setting]).force_encoding(Encoding::UTF_8).scrub
  end

  def value=(wanted)
    text.set(resource[:section], resource[:setting], wanted)
    save
  end

  def create
    return make_file if resource[:setting].nil?

    self.value = resource[:value]
  end

  def destroy
    text.remove(resource[:section], resource[:setting])
    save
  end

  private

  # A resource reads its file once, and again after it wrote.
  def text
    path = resource[:path]
    @text ||= PuppetX::OmMessaging::IniText.new(File.exist?(path) ? File.binread(path) : '')
  end

  # In place: the inode, the owner, the mode and any link stay.
  def save
    File.open(resource[:path], File::WRONLY | File::CREAT | File::TRUNC, 0o640) { |file| file.write(@text.to_s) }
    @text = nil
  end

  def make_file
    directory = File.dirname(resource[:path])
    raise Puppet::Error, "#{resource[:path]} cannot be made: there is no directory #{directory}" unless File.directory?(directory)

    File.open(resource[:path], File::WRONLY | File::CREAT | File::EXCL, 0o640).close
  end
end
