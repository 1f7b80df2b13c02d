# frozen_string_literal: true

require_relative '../../../puppet_x/om_messaging/ini_text'
require_relative '../../../puppet_x/om_messaging/regular_file'

Puppet::Type.type(:ini_setting).provide(:om_messaging) do
  desc "Edits one key of a file that oslo.config reads, and changes no other byte of the file.

  A section stays when its last key is removed. The provider refuses a symbolic link. A resource must name this provider
  to use it."

  # This is never the default provider, so ini_setting resources of other modules keep theirs.
  def self.specificity
    -1
  end

  def exists?
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
    self.value = resource[:value]
  end

  def destroy
    text.remove(resource[:section], resource[:setting], section_removable?)
    save
  end

  private

  def section_removable?
    false
  end

  def style
    'oslo'
  end

  # A resource reads its file once, and again after a write.
  def text
    found = @text ? nil : PuppetX::OmMessaging::RegularFile.look(resource[:path], &:read)
    @text ||= PuppetX::OmMessaging::IniText.new(found || '', style)
  end

  # Write in place, so that the inode, the owner and the mode stay.
  def save
    PuppetX::OmMessaging::RegularFile.open(resource[:path], File::WRONLY | File::CREAT) do |file|
      file.truncate(file.write(@text.to_s))
    end
    @text = nil
  end
end
