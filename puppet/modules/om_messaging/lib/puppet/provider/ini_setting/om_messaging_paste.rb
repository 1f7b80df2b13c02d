# frozen_string_literal: true

require_relative 'om_messaging'

Puppet::Type.type(:ini_setting).provide(:om_messaging_paste, parent: :om_messaging) do
  desc "Edits one key of a file that PasteDeploy reads, like `om_messaging` does.

  In such a file a key may be indented, and lines with a deeper indent continue its value. The provider adds and removes
  no section."

  def self.specificity
    -1
  end

  private

  def style
    'paste'
  end
end
